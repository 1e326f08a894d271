"""Files that are read again when they change: tokens, certificates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.settings import ConfigurationError

_log = logging.getLogger("tritonflare.watch")

LOOK_S = 0.5
"""Pause between two looks. A change counts when the next look finds nothing newer: who writes a file in
several steps is not caught half-way."""
LONGEST_LOOKS = 10
"""After so many looks in a row that each found something newer, a change counts all the same: whoever goes on
writing must not keep a revoked token good."""

_Look = tuple[tuple[int, int, int] | None, ...]


class FileWatch:
    """Tells when one of some files has been rewritten or exchanged."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Take the files as they are now for known."""
        self._files = tuple(files)
        self._known = self._last = self._look()
        self._restless = 0
        """Looks since the first of the changes that have not been told."""

    def has_changed(self) -> bool:
        """Tell, once for each change, when it has settled, or when it does not for too long."""
        last, self._last = self._last, self._look()
        if self._last == self._known:
            self._restless = 0
            return False
        self._restless += 1
        if self._last != last and self._restless < LONGEST_LOOKS:
            return False
        self._known, self._restless = self._last, 0
        return True

    @property
    def is_settled(self) -> bool:
        """Whether the files are as they were when a change was last told: nobody is writing them."""
        return self._last == self._known

    def _look(self) -> _Look:
        return tuple(map(_signature, self._files))


def _signature(file: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        status = file.stat()
        return status.st_mtime_ns, status.st_ino, status.st_size
    return None


async def follow(
    watch: FileWatch, read_again: Callable[[], str], pause_s: float = LOOK_S, *, complaint: str = ""
) -> None:
    """Call ``read_again`` after each change, and until it succeeds, for ever.

    A file that cannot be read for a moment, for want of a permission or because its other half is yet to
    come, need not change for it to be read.

    Args:
        watch: made before the files were read for the first time, so that no change in between is lost.
        read_again: puts the new content in force and returns a line for the log. If it raises
            ConfigurationError, that is logged, and what was read before stays in force.
        pause_s: between two looks.
        complaint: what is wrong with the files now, if they could not be read at the beginning either.
    """
    while True:
        await asyncio.sleep(pause_s)
        changed = watch.has_changed()
        if not changed and not (complaint and watch.is_settled):
            continue
        former, complaint = complaint, ""
        try:
            _log.info("%s", read_again())
        except ConfigurationError as error:
            complaint = str(error)
            if changed or complaint != former:
                _log.error("%s What was read before stays in force.", complaint)
        except Exception as error:
            complaint = repr(error)
            if changed or complaint != former:
                _log.exception(
                    "a file that has changed could not be read; what was read before stays in force"
                )
