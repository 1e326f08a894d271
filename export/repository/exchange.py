"""Replace the model repository in one step: a reader sees the old one or the new one, never a mixture.

A model is three folders, so renaming them one by one could be caught half-way. Instead a
complete repository is built beside the present one (unchanged files are hard links) and the
two are exchanged by ``renameat2(RENAME_EXCHANGE)``, which Linux does atomically. There is no
way round it where a file system cannot: two plain renames leave a moment with no repository.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from export.errors import PublishError
from export.files import only_writer

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# Publishing takes seconds; another export's turn is worth waiting for after minutes of work.
WAIT_S = 60.0
Result = TypeVar("Result")
_log = logging.getLogger("tritonflare.export")


def replace_repository(
    repository: Path,
    change: Callable[[Path], Result],
    replaced: Callable[[Result], None] = lambda result: None,
) -> Result:
    """Change a model repository in one step.

    Args:
        repository: the folder that Triton reads; made if it does not exist.
        change: changes the copy that it is given. The copy's files are hard links into the
            published repository: remove and make files, never write into one.
        replaced: called after the exchange, before another export may begin.

    Returns:
        What ``change`` returned.

    Raises:
        PublishError: another export was writing for ``WAIT_S``, or the file system cannot do it; the
            repository is as it was.
    """
    repository = repository.resolve()
    staging = repository.with_name(f".{repository.name}.staging")
    with only_writer(repository, WAIT_S):
        # Whatever a killed export left behind was never visible to a reader, or is not any more.
        shutil.rmtree(staging, ignore_errors=True)
        try:
            _copy(repository, staging)
            result = change(staging)
            sync_tree(staging)
            if repository.exists():
                _exchange(staging, repository)
            else:
                staging.rename(repository)
        except OSError as error:
            raise PublishError(f"{repository.name} was not changed: {_reason(error)}.") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        _sync_exchange(repository)
        replaced(result)
    return result


def _reason(error: OSError) -> str:
    """The system's message without paths; for a tree that could not be copied, the first one."""
    if error.strerror:
        return error.strerror
    said = re.search(r"\[Errno \d+\] ([^:'\"]+)", str(error))
    return said[1] if said else type(error).__name__


def _sync_exchange(repository: Path) -> None:
    """Bring the exchange itself to disk; readers see it already, so a failure here is not reported."""
    try:
        sync_one(repository.parent)
    except OSError as error:
        _log.warning(
            "%s was replaced, but a power cut may undo that: %s.",
            repository.name,
            error.strerror or error,
        )


def _copy(repository: Path, staging: Path) -> None:
    if repository.exists():
        shutil.copytree(repository, staging, symlinks=True, copy_function=link_or_copy)
    else:
        staging.mkdir()


def link_or_copy(source: str, target: str) -> str:
    """Make a hard link, or a copy where the file system has none; for `shutil.copytree`."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def sync_tree(folder: Path) -> None:
    """Bring the new files to disk before the exchange makes them the only ones."""
    for path in (folder, *folder.rglob("*")):
        mode = path.lstat().st_mode
        # Opening a pipe would wait for its writer; a link's target is not ours, or not even there.
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            sync_one(path)


def sync_one(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
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
