"""Versions that were published before, kept so that a model can be rolled back.

They lie beside the repository, in ``<repository>.versions/<ensemble>/<number>/``: inside it, Triton would
load them as models. Each is a repository of its own, with the one model and its steps, all of it hard links
where the file system has them. So a version that shares its weights with another costs nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from export.errors import PublishError
from export.repository.exchange import link_or_copy, sync_one, sync_tree
from export.repository.inventory import Published, content_damage, read_inventory
from export.repository.versions import kept_root, versions

_PART = ".part"


def kept_versions(repository: Path, ensemble: str) -> list[int]:
    """The numbers of a model's kept versions, lowest first; the published one may be among them."""
    return versions(kept_root(repository, ensemble))


def other_versions(repository: Path, model: Published) -> list[int]:
    """The numbers of the kept versions that are not the published one, newest first."""
    numbers = kept_versions(repository, model.ensemble)
    return [number for number in reversed(numbers) if number != model.version]


def keep_version(repository: Path, model: Published) -> None:
    """Keep the published version of a model; the caller holds the repository's lock.

    Raises:
        OSError: there is no room, or the folder cannot be written.
    """
    root = kept_root(repository, model.ensemble)
    part, place = root / _PART, root / str(model.version)
    shutil.rmtree(part, ignore_errors=True)  # of a killed export
    for folder in model.folders:
        copy_model_folder(repository / folder, part / folder)
    sync_tree(part)
    # There already if the model was rolled back to it; a TensorRT plan may have been installed since.
    shutil.rmtree(place, ignore_errors=True)
    part.rename(place)
    sync_one(root)


def copy_model_folder(source: Path, target: Path) -> None:
    """Copy what Triton reads of a model's folder: configuration, warm-up and the highest version.

    Raises:
        OSError: it cannot be copied.
    """
    served = str(max(versions(source), default=1))

    def left_out(folder: str, names: list[str]) -> set[str]:
        """Other versions, and what python compiled."""
        others = {name for name in names if name.isdecimal() and name != served}
        return {"__pycache__"} & set(names) | (others if Path(folder) == source else set())

    shutil.copytree(source, target, symlinks=True, copy_function=link_or_copy, ignore=left_out)


def prune_versions(repository: Path, ensemble: str, published: int, count: int) -> None:
    """Remove all kept versions of a model but the newest ``count`` beside the published one."""
    root = kept_root(repository, ensemble)
    shutil.rmtree(root / _PART, ignore_errors=True)
    others = [number for number in kept_versions(repository, ensemble) if number != published]
    for number in [*others[: max(0, len(others) - count)], published]:
        shutil.rmtree(root / str(number), ignore_errors=True)
    _remove_if_empty(root)


def remove_versions(repository: Path, ensemble: str) -> None:
    """Remove all kept versions of a model."""
    root = kept_root(repository, ensemble)
    shutil.rmtree(root, ignore_errors=True)
    _remove_if_empty(root)


def read_kept(repository: Path, ensemble: str, number: int) -> tuple[Path, Published]:
    """A kept version: the folder that holds it, a repository of its own, and its model.

    Raises:
        PublishError: it is not there, or damaged.
    """
    folder = kept_root(repository, ensemble) / str(number)
    found = read_inventory(folder) if folder.is_dir() else []
    if len(found) != 1 or found[0].ensemble != ensemble or found[0].version != number:
        raise PublishError(f"the kept version {number} of {ensemble} cannot be read.")
    damage = next(content_damage(folder, found[0]), None)
    if damage is not None:
        raise PublishError(f"the kept version {number} of {found[0].name} is damaged: {damage}")
    return folder, found[0]


def verify_kept(repository: Path) -> Iterator[str]:
    """One sentence for each kept version that a model cannot be rolled back to."""
    for model in read_inventory(repository):
        for number in other_versions(repository, model):
            try:
                read_kept(repository, model.ensemble, number)
            except PublishError as error:
                yield str(error)


def previous_version(repository: Path, model: Published, number: int | None) -> int:
    """The version that a model is rolled back to: the newest older one, unless a number is given.

    Raises:
        PublishError: it is not kept.
    """
    kept = other_versions(repository, model)
    if number is None:
        number = next((each for each in kept if each < model.version), None)
    if number is not None and number in kept:
        return number
    known = ", ".join(map(str, kept)) or "none"
    if number is None:
        raise PublishError(f"no version of {model.name} before {model.version} is kept; kept: {known}.")
    raise PublishError(f"version {number} of {model.name} is not kept; kept: {known}.")


def _remove_if_empty(root: Path) -> None:
    for folder in (root, root.parent):
        if folder.is_dir() and not os.listdir(folder):
            shutil.rmtree(folder, ignore_errors=True)
