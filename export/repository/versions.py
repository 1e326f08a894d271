"""The numbered versions of a model's folder, of which Triton serves the highest."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

KEEP = 3
"""How many versions are kept of each model beside the published one, for a rollback."""
_VERSION = re.compile("[1-9][0-9]*")


def kept_root(repository: Path, ensemble: str) -> Path:
    """The folder of a model's kept versions, beside the repository."""
    repository = repository.resolve()
    return repository.with_name(f"{repository.name}.versions") / ensemble


def versions(folder: Path) -> list[int]:
    """The numbered versions in a model's folder, lowest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if _VERSION.fullmatch(path.name))


def keep_versions(folder: Path, kept: Iterable[int]) -> None:
    """Remove the other versions from a model's folder."""
    for version in set(versions(folder)) - set(kept):
        shutil.rmtree(folder / str(version))
