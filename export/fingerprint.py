"""What decides the result of an export, as names and digests that two exports can be compared by.

Nothing here imports ONNX, ONNX Runtime or numpy: the comparison has to be fast.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from export.checkpoint.files import display_name, sha256
from export.evaluation.host import describe_processor
from export.plan import ExportPlan

Fingerprint = dict[str, str]
_SOURCES = Path(__file__).parent
# Extras whose packages build, check or describe an artefact; those two write configurations.
_EXTRAS = {"convert", "export", "gpu", "tensorrt", "torch"}
_PACKAGES = ("protobuf", "tritonclient")
_REQUIREMENT = re.compile(r"""([\w.-]+).*extra == ["']([\w-]+)["']""")
# Compared by content, under other names, or not at all: where files lie decides nothing.
_NOT_COMPARED = ("source", "revision", "examples", "name", "precision", "repository", "artefacts", "keep")
_DEFAULTS = "options at their defaults"
_COMMIT = "commit on the hub"
_CHOSEN = ("checkpoint", _COMMIT, "option ", "evaluation file", "name")
"""What begins with these is the user's choice; the rest are the exporter, its packages and this host."""


def is_hub_id(plan: ExportPlan) -> bool:
    """Whether the source is a hub id; what exists as a folder is none."""
    return not Path(plan.source).expanduser().exists()


def fingerprint(plan: ExportPlan, source: Fingerprint) -> Fingerprint:
    """Everything that decides what a plan publishes, except the public name.

    Args:
        plan: its options count as they take effect: a default is equal to its value.
        source: `folder_digests` or `hub_digests`.

    Raises:
        OSError: a file cannot be read.
        ImportError: this exporter is not installed as a package.
    """
    processor = describe_processor()
    found = {
        **source,
        **_options(plan),
        **_exporter(),
        # Its flags decide how weights are rounded and which kernels answer.
        "processor": " ".join((*processor.flags, f"vnni={processor.vnni}")),
    }
    if plan.timing is not None:
        found["timed on"] = processor.cpu
    if plan.examples is not None:
        found["evaluation file"] = f"{plan.examples.name} {sha256(plan.examples)}"
    return found


def folder_digests(folder: Path) -> Fingerprint:
    """A checkpoint's name and the SHA-256 of each file in its folder; hidden ones and folders are not read.

    Raises:
        OSError: a file cannot be read.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."]
    digests = {f"checkpoint file {path.name}": sha256(path) for path in files}
    return {"checkpoint": display_name(folder), **digests}


def hub_digests(hub_id: str, commit: str) -> Fingerprint:
    """The same for a model of the hub, where a commit stands for the files."""
    return {"checkpoint": hub_id, _COMMIT: commit}


def unanswered_digests(hub_id: str) -> Fingerprint:
    """The same where the hub does not tell its commit: no difference from any other commit."""
    return {"checkpoint": hub_id}


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """The names of what differs, sorted; which options are at their defaults follows from the options."""
    keys = (before.keys() | now.keys()) - {_DEFAULTS}
    return sorted(key for key in keys if before.get(key) != now.get(key))


def chosen_differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """The names of what the user has changed: source or options, whatever exports them and wherever.

    Another version of the exporter may know other options, or have other defaults: an option that is and was
    left at its default has not changed. A hub that does not answer has not changed anything either.
    """

    def unknown(found: Fingerprint, key: str) -> bool:
        return key.startswith(("option ", _COMMIT)) and key not in found

    def left_out(found: Fingerprint, key: str) -> bool:
        return unknown(found, key) or key in json.loads(found.get(_DEFAULTS, "[]"))

    return [
        key
        for key in differences(before, now)
        if key.startswith(_CHOSEN)
        and not unknown(now, key)
        and not (left_out(before, key) and left_out(now, key))
    ]


def _options(plan: ExportPlan) -> Fingerprint:
    given = _values(plan)
    usual = _values(ExportPlan(plan.source, plan.repository, plan.artefacts, target=plan.target))
    return given | {_DEFAULTS: json.dumps([key for key in sorted(given) if given[key] == usual[key]])}


def _values(plan: ExportPlan) -> Fingerprint:
    options = {key: value for key, value in asdict(plan).items() if key not in _NOT_COMPARED}
    options["precision"] = plan.served
    return {f"option {key}": json.dumps(value, sort_keys=True) for key, value in options.items()}


def _exporter() -> Fingerprint:
    """Versions of this package and of those that it exports with, and a digest of its source files."""
    digest = hashlib.sha256()
    for file in sorted(_SOURCES.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(_SOURCES)} {len(content)}\n".encode() + content)
    requirements = map(_REQUIREMENT.match, metadata.requires("tritonflare") or ())
    needed = {found[1].lower().replace("_", "-") for found in requirements if found and found[2] in _EXTRAS}
    versions = {f"package {name}": _version(name) for name in sorted({*needed, *_PACKAGES})}
    return {"tritonflare": metadata.version("tritonflare"), "exporter": digest.hexdigest(), **versions}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
