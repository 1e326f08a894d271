"""Makes the pieces that `assemble.sh` puts together on a machine without a network.

    .venv/bin/python -m tools.gpu_check.bundle --output .cache/gpu-bundle

Needs PyPI and git. Uncommitted changes are not in the bundle.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click
from packaging.markers import Marker

from tools.gpu_check.pieces import MANIFEST, Cut, cut
from tritonflare.progress import Steps, progress

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "serve-gpu.txt"
SCRIPT = Path(__file__).with_name("assemble.sh")
PYTHONS = ("3.10", "3.11", "3.12")
"""Triton's wheel has a stub for each of them."""
_MB = 1_000_000
# pip matches these one by one. Triton needs glibc 2.35, so wheels for older ones will do.
_PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(35, 4, -1)), "manylinux2014_x86_64",
              "manylinux2010_x86_64", "manylinux1_x86_64")  # fmt: skip
_REQUIREMENT = re.compile(
    r"^(?P<pin>[A-Za-z0-9._-]+==\S+)(?: ; (?P<marker>[^\\\n]+?))?(?P<hashes> \\\n.*)", re.S
)
_BUILDS = re.compile(r'^requires = \["(setuptools==[^"]+)"\]$', re.MULTILINE)
_LAUNCHER = """#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
LD_LIBRARY_PATH=$here exec "$here/wrk.bin" "$@"
"""


def for_python(lock: str, python: str) -> str:
    """The requirements of a lock file that hold for one Python on Linux x86-64, with their hashes.

    pip would compare the markers with the Python that it runs on.

    Args:
        lock: what ``uv pip compile --generate-hashes`` wrote.
        python: such as ``3.12``.

    Raises:
        ValueError: a requirement has no exact version, or no hash.
    """
    environment = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    kept = []
    for entry in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
        if not entry.strip() or entry.startswith("#"):
            continue
        found = _REQUIREMENT.match(entry)
        if found is None or "--hash=" not in found["hashes"]:
            raise ValueError(f"{entry.split()[0]} has no exact version, or no hash")
        if found["marker"] is None or Marker(found["marker"]).evaluate(environment):
            kept.append(found["pin"] + found["hashes"].rstrip() + "\n")
    return "".join(kept)


def download(requirements: Path, build: str, python: str, folder: Path) -> None:
    """Fetch the wheels of ``requirements`` for another Python than this one, and what builds the project.

    Raises:
        click.ClickException: a package has no wheel, or pip failed; pip has said why.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    pip += ["--dest", str(folder), "--python-version", python, "--implementation", "cp"]
    pip += ["--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    pip += [part for platform in _PLATFORMS for part in ("--platform", platform)]
    for wanted in (["--require-hashes", "--requirement", str(requirements)], [build]):
        if subprocess.run([*pip, *wanted], check=False).returncode != 0:
            raise click.ClickException("the wheels could not be fetched; see what pip said above.")


def load_generator(folder: Path) -> bool:
    """Copy wrk and those of its libraries that a bare machine lacks; tell whether it is here."""
    program = shutil.which("wrk")
    if program is None:
        return False
    folder.mkdir()
    shutil.copyfile(program, folder / "wrk.bin")
    (folder / "wrk").write_text(_LAUNCHER, encoding="utf-8")
    linked = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for name, file in re.findall(r"(lib(?:luajit|ssl|crypto|gcc_s)\S*) => (\S+)", linked):
        shutil.copyfile(file, folder / name)
    return True


def stage(lock: Path, python: str, folder: Path, steps: Steps) -> None:
    """Fill ``folder`` with what the other machine gets: requirements, wheels, project, wrk."""
    requirements = folder / "requirements.txt"
    requirements.write_text(for_python(lock.read_text(encoding="utf-8"), python), encoding="utf-8")
    build = _BUILDS.search((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if build is None:
        raise click.ClickException("pyproject.toml names no exact setuptools that builds the project.")
    steps.step(f"fetching the wheels of {lock.name} for Python {python}")
    download(requirements, build[1], python, folder / "wheels")
    steps.step("packing the project")
    with (folder / "project.tar").open("wb") as out:
        subprocess.run(["git", "archive", "--format=tar", "HEAD"], cwd=ROOT, check=True, stdout=out)
    if not load_generator(folder / "wrk"):
        click.echo("wrk is not installed here: the bundle's bench will use our own client.", err=True)


def write_bundle(staged: Path, output: Path, piece_bytes: int, facts: dict[str, str], steps: Steps) -> Cut:
    """Cut all files below ``staged`` and write pieces, manifest and script into ``output``.

    Raises:
        click.ClickException: the disk has too little room for the pieces.
    """
    files = {str(file.relative_to(staged)): file for file in sorted(staged.rglob("*")) if file.is_file()}
    total = sum(file.stat().st_size for file in files.values())
    if shutil.disk_usage(output).free < total:
        raise click.ClickException(f"the disk has too little room for {total / _MB:,.0f} MB of pieces.")
    steps.step("cutting")
    found = cut(files, output, piece_bytes, steps.advance)
    (output / MANIFEST).write_text(found.manifest(facts), encoding="utf-8")
    shutil.copyfile(SCRIPT, output / SCRIPT.name)
    return found


def _summary(found: Cut, largest: int = 8) -> Iterable[str]:
    total = sum(piece.size for piece in found.pieces)
    yield f"{len(found.pieces)} pieces, {total / _MB:,.0f} MB, of {len(found.files)} files; the largest:"
    for file in sorted(found.files, key=lambda file: -file.size)[:largest]:
        yield f"{file.size / _MB:9,.1f} MB  {file.name}"


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the pieces; it must be empty or not exist.",
)
@click.option(
    "--python", type=click.Choice(PYTHONS), default="3.12", show_default=True, help="Of the other machine."
)
@click.option("--piece-mb", type=click.IntRange(1), default=60, show_default=True, help="Most MB of a piece.")
@click.option(
    "--lock",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=LOCK,
    help="Lock file of what is installed there [default: requirements/serve-gpu.txt].",
)
def main(output: Path, python: str, piece_mb: int, lock: Path) -> None:
    """Make pieces of everything that `assemble.sh` needs on a machine without a network."""
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()):
        raise click.ClickException(f"{output} is not empty.")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    facts = {"python": python, "commit": commit}
    with progress("starting") as steps, tempfile.TemporaryDirectory(dir=output, prefix=".staged_") as work:
        staged = Path(work)
        stage(lock, python, staged, steps)
        found = write_bundle(staged, output, piece_mb * _MB, facts, steps)
    for line in _summary(found):
        click.echo(line)
    click.echo(f"Copy all of {output} to the other machine, and there: sh {SCRIPT.name}")


if __name__ == "__main__":
    main()
