"""A copy of a model whose python steps mark their times."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).parent


def copy_watched(repository: Path, folders: Sequence[str], copy: Path) -> None:
    """Copy ``folders`` of a model repository, and have their programs mark their times.

    Raises:
        OSError: a folder is not there, or ``copy`` cannot be written.
    """
    for name in dict.fromkeys(folders):
        shutil.copytree(repository / name, copy / name)
    for program in copy.glob("*/*/model.py"):
        program.rename(program.with_name("served.py"))
        shutil.copyfile(_HERE / "watched_model.py", program)
        shutil.copyfile(_HERE / "marks.py", program.with_name("marks.py"))


def mark_files(copy: Path) -> list[Path]:
    """What the programs of a watched copy have written."""
    return sorted(copy.glob("*/*/marks.txt"))
