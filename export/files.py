"""Files that are whole or not there, and one writer at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.errors import PublishError


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file in one step; a served repository may hold a hard link to the old one.

    The caller must be the only writer: a part that a killed one left is written over.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which lies beside it and ends with the process.

    Raises:
        PublishError: another export holds it, or it cannot be made here.
    """
    lock = folder.with_name(f".{folder.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise PublishError(f"{folder.name} cannot be written here: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PublishError(f"another export is writing {folder.name}; wait for it to end.") from error
        yield
