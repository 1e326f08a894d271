"""Remove a model: from the repository, with its kept versions, and the artefacts of its exports."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from export.errors import PublishError
from export.files import only_writer
from export.repository.inventory import find_published
from export.repository.publish import remove_model
from export.repository.versions import kept_root
from export.spec import ensemble_name


def remove_everything(repository: Path, artefacts: Path, name: str) -> int:
    """Remove a model and all that its exports made; an export that is at work on it is not disturbed.

    Args:
        repository: the folder that Triton reads.
        artefacts: the folder that holds the model's folder with ONNX files and report.
        name: public name.

    Returns:
        Bytes on disk that no other file of ours uses: hard links count once, and a tokenizer that another
        model uses not at all. A running server still holds those that it serves.

    Raises:
        ExportError: no model has this name, another export holds its artefacts, or the repository could not
            be replaced; nothing was removed.
    """
    find_published(repository, name)
    folder = artefacts / ensemble_name(name)
    with only_writer(folder) if folder.is_dir() else nullcontext():
        kept = kept_root(repository, folder.name)
        before = _sizes((repository, kept, folder))
        remove_model(repository, name)
        try:
            if folder.is_dir():
                shutil.rmtree(folder)
        except OSError as error:
            raise PublishError(
                f"{name} was removed, but its artefacts could not be: {error.strerror or error}."
            ) from error
        after = _sizes((repository, kept, folder))
    return sum(size for file, size in before.items() if file not in after)


def _sizes(folders: Iterable[Path]) -> dict[tuple[int, int], int]:
    """The bytes of each file by its identity: a hard link is the same file."""
    found = (path.stat() for folder in folders for path in _files(folder))
    return {(each.st_dev, each.st_ino): each.st_size for each in found}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
