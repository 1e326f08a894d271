"""Replace the model repository in one step: a reader sees the old one or the new one, never a mixture.

A model is three folders, so renaming them one by one could be caught half-way. Instead a
complete repository is built beside the present one (unchanged files are hard links) and the
two are exchanged by ``renameat2(RENAME_EXCHANGE)``, which Linux does atomically.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from export.errors import PublishError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def publish(repository: Path, replaced: Callable[[str], bool], write: Callable[[Path], None]) -> None:
    """Publish new model folders into a repository.

    Args:
        repository: the folder that Triton reads; made if it does not exist.
        replaced: says of an existing entry's name whether the new model takes its place.
        write: writes the new folders into the folder that it is given.

    Raises:
        PublishError: another export is running, or the file system cannot do it; the
            repository is as it was.
    """
    repository = repository.resolve()
    staging = repository.with_name(f".{repository.name}.staging")
    with _only_one(repository):
        # Whatever a killed export left behind was never visible to a reader.
        shutil.rmtree(staging, ignore_errors=True)
        try:
            _copy_others(repository, staging, replaced)
            write(staging)
            _sync(staging)
            if repository.exists():
                _exchange(staging, repository)
            else:
                staging.rename(repository)
        except OSError as error:
            raise PublishError(f"{repository.name} was not changed: {error.strerror or error}.") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _only_one(repository: Path) -> Iterator[None]:
    lock = repository.with_name(f".{repository.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise PublishError(f"{repository.name} cannot be written here: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PublishError(f"another export is writing {repository.name}; wait for it to end.") from error
        yield


def _copy_others(repository: Path, staging: Path, replaced: Callable[[str], bool]) -> None:
    staging.mkdir()
    if not repository.exists():
        return
    shutil.copymode(repository, staging)
    for entry in repository.iterdir():
        if replaced(entry.name):
            continue
        if entry.is_dir():
            shutil.copytree(entry, staging / entry.name, copy_function=_link_or_copy)
        else:
            _link_or_copy(str(entry), str(staging / entry.name))


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _sync(folder: Path) -> None:
    """Bring the new files to disk before the exchange makes them the only ones."""
    for path in (folder, *folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(_AT_FDCWD, bytes(one), _AT_FDCWD, bytes(other), _RENAME_EXCHANGE)
    if done != 0:
        code = ctypes.get_errno()
        hint = (
            "its file system cannot exchange two folders (if it is itself a mount point, mount its parent)"
            if code in (errno.EINVAL, errno.ENOSYS, errno.EBUSY, errno.EXDEV)
            else os.strerror(code)
        )
        raise PublishError(f"{other.name} was not changed: {hint}.")
