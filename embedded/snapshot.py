"""Private copies of a model repository, so that the served version does not change underneath Triton."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Hashable, Iterator
from pathlib import Path

from embedded.errors import EmbeddedError
from embedded.leftovers import Claim

_ATTEMPTS = 5
_PAUSE_S = 0.1


class Releases:
    """Detects new versions in a repository, and takes snapshots of it."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._taken: Hashable | None = None
        self._seen: Hashable | None = None

    def take(self) -> Snapshot:
        """Copy the published version to a folder of its own, which the caller removes.

        Raises:
            EmbeddedError: see `take_snapshot`; or there is no room for the folder.
        """
        self._taken = self._seen = fingerprint(self._repository)
        claim = Claim("snapshot")
        try:
            take_snapshot(self._repository, claim.folder / "models")
        except BaseException:
            claim.release()
            raise
        return Snapshot(claim)

    def forget(self) -> None:
        """Treat the version that was taken last as new again, because it is not served."""
        self._taken = None

    def is_new(self) -> bool:
        """Whether the repository differs from the version that was taken last."""
        found = fingerprint(self._repository)
        return found is not None and found != self._taken

    def has_settled(self) -> bool:
        """Whether it is new, and unchanged since the last call: no export is writing it."""
        before, self._seen = self._seen, fingerprint(self._repository)
        return self._seen is not None and self._seen == before and self._seen != self._taken


class Snapshot:
    """A private copy of one version."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self.models = claim.folder / "models"
        self._content = self._files()

    def is_whole(self) -> bool:
        """Whether it is complete: a cleaner of TMPDIR may have removed it, or its oldest files.

        Additional files do not matter: Triton's python stubs write their compiled models there. Nor do
        times: a hard link has those of the published file.
        """
        return bool(self._content) and self._content <= self._files()

    def _files(self) -> frozenset[tuple[str, int, int]]:
        """Return path, inode and size of each file; empty without a folder."""
        return frozenset((place, inode, size) for place, inode, size, _ in fingerprint(self.models) or ())

    def remove(self) -> None:
        """Remove it."""
        self._claim.release()


def take_snapshot(repository: Path, folder: Path) -> None:
    """Copy a consistent state of the repository, by hard links if the file system allows it.

    Args:
        repository: the model repository.
        folder: where the copy goes; it must not exist.

    Raises:
        EmbeddedError: it cannot be read or written, or changed during each attempt.
    """
    for _ in range(_ATTEMPTS):
        before = fingerprint(repository)
        if before is None:
            break
        problem: OSError | None = None
        try:
            shutil.copytree(
                repository.resolve(), folder, copy_function=_link_or_copy, ignore_dangling_symlinks=True
            )
        except (OSError, shutil.Error) as error:
            # It may have been exchanged meanwhile; the next attempt shows.
            problem = error
        else:
            if fingerprint(repository) == before:
                return
        shutil.rmtree(folder, ignore_errors=True)
        if problem is not None and fingerprint(repository) == before:
            reason = getattr(problem, "strerror", None) or "some files could not be copied"
            raise EmbeddedError(f"No private copy of {repository.name} could be made in TMPDIR: {reason}.")
        time.sleep(_PAUSE_S)
    else:
        raise EmbeddedError(f"{repository.name} changed during each of {_ATTEMPTS} attempts to copy it.")
    raise EmbeddedError(f"There is no model repository {repository.name}; run `tritonflare export`.")


def fingerprint(repository: Path) -> tuple[tuple[str, int, int, int], ...] | None:
    """Return what changes with each publication: path, inode, size and time of each file; None if missing."""
    try:
        root = repository.resolve(strict=True)
        return tuple(sorted((str(path.relative_to(root)), *_identity(path)) for path in _files(root)))
    except OSError:
        return None


def _files(root: Path) -> Iterator[Path]:
    """All files; links to folders are followed, as they are in copying."""

    def stop(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):  # it was exchanged meanwhile
            raise error

    for folder, _, names in os.walk(root, onerror=stop, followlinks=True):
        yield from (Path(folder, name) for name in names)


def _identity(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        found = path.lstat()  # a link to nowhere
    return found.st_ino, found.st_size, found.st_mtime_ns


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
    return target
