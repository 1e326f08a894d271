"""Resources of a server outside its own memory, and the removal of those that a killed server leaves behind.

When the supervisor is killed, the kernel ends tritonserver, but python stubs that were still loading stay, as
do shared-memory regions and folders for temporary files. Each of these belongs to the process that holds its
lock, which the kernel releases when the process ends. A process id would not do: another server may share the
folders and not the ids, in a container of its own. systemd's cleaner of temporary files skips locked
folders as well.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedded.errors import EmbeddedError

SHM = Path("/dev/shm")  # noqa: S108 (the place where the python backend puts its regions)
PROC = Path("/proc")
_PREFIX = "tritonflare_"
_PURPOSES = ("server", "snapshot")
_FOLDER = re.compile(rf"{_PREFIX}\d+_\w+_(?:{'|'.join(_PURPOSES)})", re.ASCII)
_LOCK = "lock"
# As mkdtemp names the folder: no tag is the beginning of another, and none has a wildcard in it.
_LOCK_OF_REGIONS = re.compile(rf"{_PREFIX}\d+_[a-z0-9_]{{8}}_{_LOCK}", re.ASCII)
_PROGRAMS = ("tritonserver", "triton_python_backend_stub")


class Claim:
    """A new folder for temporary files, locked until `release` or the end of this process.

    Args:
        purpose: ``server`` or ``snapshot``.
        regions: also claim the shared-memory regions whose names begin with the tag.

    Raises:
        EmbeddedError: it cannot be created.
    """

    def __init__(self, purpose: str, *, regions: bool = False) -> None:
        self._locks: list[int] = []
        try:
            self.folder = self._make_folder(purpose)
            self.tag = self.folder.name.removesuffix(purpose)
            """Prefix of the names of everything that belongs to it."""
            if regions:
                self._make_lock_of_regions()
        except OSError as error:
            raise EmbeddedError(f"No folder could be made in TMPDIR: {error.strerror}.") from error

    def release(self) -> None:
        """Remove everything that belongs to it."""
        if self._locks:
            _remove_regions(self.tag)
            shutil.rmtree(self.folder, ignore_errors=True)
        while self._locks:
            os.close(self._locks.pop())

    def _make_folder(self, purpose: str) -> Path:
        while True:
            # The process id is for information only.
            folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}_", suffix=f"_{purpose}"))
            if self._lock(folder, os.O_RDONLY | os.O_DIRECTORY):
                return folder

    def _make_lock_of_regions(self) -> None:
        try:
            while not self._lock(SHM / f"{self.tag}{_LOCK}", os.O_RDWR | os.O_CREAT):
                pass
        except OSError:
            self.release()
            raise

    def _lock(self, path: Path, flags: int) -> bool:
        """Lock it; return False if another process has removed it before that."""
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            return False
        with suppress(OSError):  # without locks, no process removes it either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not path.exists():
            os.close(descriptor)
            return False
        self._locks.append(descriptor)
        return True


def sweep() -> int:
    """Remove the resources of dead servers; return how many. Those of other users are left alone."""
    removed = 0
    for process in _orphans():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)
            removed += 1
    for lock in SHM.glob(f"{_PREFIX}*_{_LOCK}"):
        if _LOCK_OF_REGIONS.fullmatch(lock.name):
            with _unless_held(lock) as free:
                if free:
                    removed += _remove_regions(lock.name.removesuffix(_LOCK))
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _FOLDER.fullmatch(folder.name):
            with _unless_held(folder) as free:
                if free:
                    with suppress(OSError):
                        shutil.rmtree(folder)
                        removed += 1
    return removed


def _remove_regions(tag: str) -> int:
    """Remove the regions with a tag, and then their lock; return the number of regions."""
    removed = 0
    lock = SHM / f"{tag}{_LOCK}"
    for region in {*SHM.glob(f"{tag}*")} - {lock}:
        with suppress(OSError):
            region.unlink()
            removed += 1
    with suppress(OSError):
        lock.unlink()
    return removed


@contextmanager
def _unless_held(path: Path) -> Iterator[bool]:
    """Hold the lock of a file or folder inside; yield False if another process holds it, or on an error."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _orphans() -> Iterator[int]:
    """Yield the processes of Triton whose command line names a folder without a holder of its lock."""
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it may have ended
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(words[0]).name in _PROGRAMS:
                folder = next((found for word in words[1:] if (found := _folder_in(word)) is not None), None)
                if folder is not None:
                    # As that process sees it, which may be in a container.
                    with _unless_held(entry / "root" / folder.relative_to("/")) as free:
                        if free:
                            yield int(entry.name)


def _folder_in(word: str) -> Path | None:
    """Return the folder of a server in a path, or in an option with a path."""
    path = Path(word.partition("=")[2] if word.startswith("--") else word)
    found = (parent for parent in (path, *path.parents) if _FOLDER.fullmatch(parent.name))
    return next((parent for parent in found if parent.is_absolute()), None)
