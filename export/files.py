"""Files that are whole or not there, and one writer at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from export.errors import PublishError

_POLL_S = 0.1
_SCRATCH = "tritonflare_export_"


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
def only_writer(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a folder, which lies beside it and ends with the process.

    Args:
        folder: need not be there yet.
        wait_s: how long another export may go on holding it, in seconds.

    Raises:
        PublishError: another export holds it, it cannot be made here, or the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise PublishError(f"{folder.name} cannot be written here: it is not a folder.")
    lock = folder.with_name(f".{folder.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise PublishError(f"{folder.name} cannot be written here: {error.strerror}.") from error
    with file:
        deadline = time.monotonic() + wait_s
        while not _locked(file):
            if time.monotonic() >= deadline:
                waited = f" and did not end within {wait_s:.0f} s" if wait_s else ""
                raise PublishError(f"another export is writing {folder.name}{waited}; wait for it to end.")
            time.sleep(_POLL_S)
        yield


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder in TMPDIR, removed at the end; those that killed exports left there are removed first.

    An export holds the lock of its folder, which ends with the process.

    Raises:
        OSError: it cannot be made.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        lock = _lock_folder(folder)
        if lock is not None:
            _remove(folder, lock)
    folder, lock = _new_scratch_folder()
    try:
        yield folder
    finally:
        _remove(folder, lock)


def _new_scratch_folder() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH))
        lock = _lock_folder(folder)
        if lock is not None:  # else another export has just removed it, as it was not locked yet
            return folder, lock


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _lock_folder(folder: Path) -> int | None:
    """Lock a folder of our own; None if another process holds it, or it is gone or another user's."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    if os.fstat(descriptor).st_uid == os.geteuid() and _locked(descriptor) and folder.exists():
        return descriptor
    os.close(descriptor)
    return None


def _locked(file: IO[str] | int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
