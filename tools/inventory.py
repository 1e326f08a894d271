"""What is shipped, and whether anything of it is known to be vulnerable: ``make sbom``, ``make audit``.

The tools are in an environment of their own: what they need is nothing that is served.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

LOCK = Path("requirements/serve.txt")
SBOM = Path("sbom.cdx.json")
CHECKPOINTS = Path("checkpoints")
BUNDLED = ("minilm-sst2", "minilm-rerank")
TRITON = "2.51.0"
"""Of the binary in the wheel of nvidia-pytriton 0.7.0, which is unknown to package managers."""
_PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==", re.MULTILINE)
_URL = re.compile(r"(?:file|git\+\w+)://|://(?:localhost|127\.|\[::1\])")


def normalised(name: str) -> str:
    """Spell the name of a package as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(lock: str) -> set[str]:
    """The packages that a lock file names."""
    return {normalised(name) for name in _PINNED.findall(lock)}


def as_shipped(found: dict[str, Any], shipped: set[str]) -> dict[str, Any]:
    """Take a CycloneDX document of an environment and keep what is served; add what no package manager knows.

    Args:
        found: a document about everything that is installed, tools for tests among it.
        shipped: normalised names of the packages that are served.

    Raises:
        click.ClickException: it would show where on this machine or from which index something came.
    """
    kept = [part for part in found["components"] if normalised(part["name"]) in shipped]
    missing = {part["bom-ref"] for part in found["components"]} - {part["bom-ref"] for part in kept}
    dependencies = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", []) if ref not in missing]}
        for entry in found.get("dependencies", [])
        if entry["ref"] not in missing
    ]
    document = {**found, "components": [*kept, *_unmanaged()], "dependencies": dependencies}
    text = json.dumps(document)
    if _URL.search(text) or str(Path.cwd()) in text or str(Path.home()) + "/" in text:
        raise click.ClickException("the inventory would show paths or addresses of this machine")
    return document


def _unmanaged() -> Iterable[dict[str, Any]]:
    yield {
        "type": "application",
        "bom-ref": "tritonserver",
        "supplier": {"name": "NVIDIA"},
        "name": "tritonserver",
        "version": TRITON,
        "description": "The binary inside the wheel of nvidia-pytriton; see docs/security.md.",
        "purl": f"pkg:generic/tritonserver@{TRITON}",
    }
    for name in BUNDLED:
        weights = (CHECKPOINTS / name / "model.safetensors").read_bytes()
        yield {
            "type": "machine-learning-model",
            "bom-ref": name,
            "name": name,
            "description": "Bundled weights.",
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(weights).hexdigest()}],
        }


@click.group()
def main() -> None:
    """List what is served, and look it up."""


@main.command()
@click.argument("tools", type=click.Path(path_type=Path, file_okay=False))
def sbom(tools: Path) -> None:
    """Write sbom.cdx.json with cyclonedx-py from TOOLS, a folder of programs."""
    command = (tools / "cyclonedx-py", "environment", "--output-reproducible", "--of", "JSON")
    run = subprocess.run(
        [*command, "--pyproject", "pyproject.toml", sys.executable], check=True, stdout=subprocess.PIPE
    )
    document = as_shipped(json.loads(run.stdout), pinned(LOCK.read_text(encoding="utf-8")))
    SBOM.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    click.echo(f"{SBOM}: {len(document['components'])} components")


@main.command()
@click.argument("tools", type=click.Path(path_type=Path, file_okay=False))
def audit(tools: Path) -> None:
    """Look every pinned package up with pip-audit from TOOLS; fail if one is vulnerable or could not be."""
    command = (tools / "pip-audit", "-r", LOCK, "--require-hashes", "--disable-pip", "--format", "json")
    run = subprocess.run([*command, "--progress-spinner", "off"], check=False, capture_output=True, text=True)
    try:
        packages = json.loads(run.stdout)["dependencies"]
    except (ValueError, LookupError):
        raise click.ClickException(
            "pip-audit gave no answer: can the source of advisories (pypi.org) be reached from here?"
        ) from None
    text, failed = verdict(packages)
    click.echo(text, err=failed)
    sys.exit(failed)


def verdict(packages: list[dict[str, Any]]) -> tuple[str, bool]:
    """Return a report of pip-audit's answer, and whether the audit has failed.

    pip-audit itself calls a package fine that its source does not know, so without a source everything is.
    """
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, "
        f"mended in {', '.join(found['fix_versions']) or 'no version'}"
        for package in packages
        for found in package.get("vulns", [])
    ]
    if unknown and len(unknown) == len(packages):
        return "Nothing was checked: the source of advisories (pypi.org) cannot be reached from here.", True
    if unknown:
        lines.append(f"not checked, the source of advisories does not know them: {', '.join(unknown)}")
    return "\n".join(lines) or f"No known vulnerability in {len(packages)} packages.", bool(lines)


if __name__ == "__main__":
    main()
