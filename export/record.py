"""What the last export of a model published, and whether another export would publish the same.

The record lies beside the model's artefacts and is written last. What cannot be compared, such as a
file that cannot be read or a commit that the hub does not tell, leads to an export.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from export.card import default_name, read_card
from export.checkpoint.files import display_name, sha256
from export.checkpoint.source import hub_commit
from export.errors import ExportError
from export.files import write_atomically
from export.fingerprint import (
    Fingerprint,
    chosen_differences,
    differences,
    fingerprint,
    folder_digests,
    hub_digests,
    is_hub_id,
    unanswered_digests,
)
from export.plan import ExportPlan
from export.repository.pin import pinned_version
from export.repository.versions import versions
from export.spec import ServedModel, ensemble_name

RECORD = "published.json"
SCHEMA = 1
CONFIG = "config.pbtxt"
_MOST_NAMED = 3
Digests = dict[str, str]
"""File, relative to a folder → SHA-256."""


class ExportNeeded(Exception):
    """An export has to be done; the message is the reason."""


@dataclass(frozen=True)
class ExportRecord:
    """One publication.

    warnings: how many the export printed. fingerprint: what decided the result. published: the
    model's files in the repository. kit: those of the kit for its TensorRT plan, if it has one.
    """

    name: str
    version: int
    warnings: int
    fingerprint: Fingerprint
    published: Digests
    kit: Digests
    schema: int = SCHEMA
    pinned: int = 0
    """The version that is published now because a rollback chose it; 0 if this one was exported last."""


def write_record(
    folder: Path,
    repository: Path,
    model: ServedModel,
    ensemble_config: str,
    made_from: Fingerprint,
    warnings: int,
    kit: Path | None,
) -> None:
    """Record a publication, unless another one has taken its place meanwhile.

    Args:
        folder: the model's artefacts.
        repository: where it was published.
        model: as published.
        ensemble_config: the configuration that its publication wrote.
        made_from: the fingerprint, taken before anything was read.
        warnings: how many the export prints.
        kit: the folder of its kit for a TensorRT plan, among the artefacts.

    Raises:
        OSError: a file cannot be read, or the record not written.
    """
    # The ensemble is read last: if it is this publication's, so was all that was read before.
    published = _published_files(repository, (model.tokenizer, model.encoder, model.ensemble))
    if (repository / model.ensemble / CONFIG).read_bytes() != ensemble_config.encode():
        return
    record = ExportRecord(
        name=model.name,
        version=model.version,
        warnings=warnings,
        fingerprint=made_from | {"name": model.name},
        published=published,
        kit=_digests(folder, kit.rglob("*")) if kit else {},
    )
    write_atomically(folder / RECORD, json.dumps(asdict(record), indent=1).encode() + b"\n")


def unchanged_export(plan: ExportPlan) -> ExportRecord:
    """The record of the publication that an export of this plan would repeat.

    After a rollback it is that of the last export, with ``pinned``: then source and options alone count, so
    that another image or host does not undo the rollback.

    Raises:
        ExportNeeded: something differs, is damaged or cannot be compared.
    """
    try:
        name = _name(plan)
        folder = plan.artefacts / ensemble_name(name)
        record = _read(folder)
        if not (plan.repository / ensemble_name(name) / CONFIG).is_file():
            raise ExportNeeded(f"{name} is not published in {plan.repository}")
        pinned = _pinned(plan.repository, name)
        now = fingerprint(plan, _source(plan, pinned > 0)) | {"name": name}
        changed = (chosen_differences if pinned else differences)(record.fingerprint, now)
        damaged = [] if pinned else _damaged(record, plan.repository, folder)
    except (ExportError, OSError, ImportError) as error:
        raise ExportNeeded(f"it cannot be compared with the last one ({error})") from error
    if changed:
        raise ExportNeeded(f"changed since the last one: {_first(changed)}")
    if damaged:
        raise ExportNeeded(f"not as the last one left it: {_first(damaged)}")
    return replace(record, pinned=pinned)


def _pinned(repository: Path, name: str) -> int:
    """The published version if a rollback chose it and its files are intact, else 0."""
    number = pinned_version(repository, ensemble_name(name))
    if number is None:
        return 0
    # Only here, because protobuf takes a while to import.
    from export.repository.inventory import content_damage, find_published  # noqa: PLC0415

    model = find_published(repository, name)
    intact = model.version == number and not any(content_damage(repository, model))
    return number if intact else 0


def _read(folder: Path) -> ExportRecord:
    file = folder / RECORD
    if not file.is_file():
        raise ExportNeeded(f"there is no {RECORD} of an earlier one in {folder}")
    try:
        record = ExportRecord(**json.loads(file.read_bytes()))
        whole = all(isinstance(each, dict) for each in (record.fingerprint, record.published, record.kit))
    except (ValueError, TypeError) as error:
        raise ExportNeeded(f"{file} is damaged") from error
    if not whole or record.schema != SCHEMA:
        raise ExportNeeded(f"{file} is not of this version")
    return record


def _name(plan: ExportPlan) -> str:
    if plan.name is not None:
        return plan.name
    if is_hub_id(plan):
        return default_name(str(plan.source))
    folder = Path(plan.source).expanduser()
    return read_card(folder).get("name", default_name(display_name(folder)))


def _source(plan: ExportPlan, pinned: bool) -> Fingerprint:
    if not is_hub_id(plan):
        return folder_digests(Path(plan.source).expanduser())
    commit = hub_commit(str(plan.source), plan.revision)
    if commit is None and pinned:
        return unanswered_digests(str(plan.source))
    if commit is None:
        raise ExportNeeded("the hub does not answer")
    return hub_digests(str(plan.source), commit)


def _damaged(record: ExportRecord, repository: Path, folder: Path) -> list[str]:
    """Files of the publication and of its kit that differ; an installed plan of the kit is no damage."""
    kits = {file.partition("/")[0] for file in record.kit}
    kit = _digests(folder, (path for name in kits for path in (folder / name).rglob("*")))
    if differing := differences(record.kit, kit):
        return differing
    published = _published_files(repository, {file.partition("/")[0] for file in record.published})
    differing = differences(record.published, published)
    config = f"{ensemble_name(record.name)}/{CONFIG}"
    if differing == [config] and any(
        _serves_plan(record, repository, published.get(config, ""), folder / name) for name in kits
    ):
        return []
    return differing


def _serves_plan(record: ExportRecord, repository: Path, config: str, kit: Path) -> bool:
    """Whether docker/triton/build_plans.py has installed a plan of the kit; its other files must be intact.

    The plan itself was built elsewhere, so that there is nothing to compare it with.

    Args:
        record: of the publication that the kit belongs to.
        repository: where it is published.
        config: the digest of the ensemble's configuration there.
        kit: unchanged since the export.
    """
    for candidate in json.loads((kit / "kit.json").read_bytes())["candidates"]:
        source, encoder = kit / candidate["precision"], repository / candidate["encoder"]
        if sha256(source / f"ensemble.{CONFIG}") != config:
            continue
        wanted = _digests(source, (source / "warmup").rglob("*"))
        wanted[CONFIG] = sha256(source / f"encoder.{CONFIG}")
        return (
            versions(encoder) == [record.version]
            and (encoder / str(record.version) / "model.plan").is_file()
            and wanted == _digests(encoder, [encoder / CONFIG, *(encoder / "warmup").rglob("*")])
        )
    return False


def _published_files(repository: Path, folders: Iterable[str]) -> Digests:
    """What Triton reads of some models: configuration, warm-up and the highest version."""
    found: Digests = {}
    for name in folders:
        folder = repository / name
        found |= _digests(repository, _served_paths(folder))
    return found


def _served_paths(folder: Path) -> Iterator[Path]:
    yield folder / CONFIG
    yield from (folder / "warmup").rglob("*")
    for version in versions(folder)[-1:]:
        yield from (path for path in (folder / str(version)).rglob("*") if "__pycache__" not in path.parts)


def _digests(root: Path, paths: Iterable[Path]) -> Digests:
    return {str(path.relative_to(root)): sha256(path) for path in sorted(paths) if path.is_file()}


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
