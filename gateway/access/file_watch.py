"""Files that are read again when they change: tokens, certificates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.settings import ConfigurationError

_log = logging.getLogger("tritonflare.watch")

CHECK_S = 0.5
"""Pause between two checks. A change counts when the next check finds nothing newer, so that a file that is
written in several steps is not read half-written."""
MOST_CHECKS = 10
"""After so many checks in a row that each found something newer, a change counts all the same: a file that is
written all the time must not keep a revoked token valid."""

_Signatures = tuple[tuple[int, int, int] | None, ...]


class FileWatch:
    """Detects that one of several files was rewritten or replaced, since it was made."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self._known = self._last = self._read_signatures()
        self._unsettled_checks = 0
        """Checks since the first change that was not reported."""

    def has_changed(self) -> bool:
        """Return True once for each change: when it has settled, or has not for too long."""
        last, self._last = self._last, self._read_signatures()
        if self._last == self._known:
            self._unsettled_checks = 0
            return False
        self._unsettled_checks += 1
        if self._last != last and self._unsettled_checks < MOST_CHECKS:
            return False
        self._known, self._unsettled_checks = self._last, 0
        return True

    @property
    def is_settled(self) -> bool:
        """Whether the files are unchanged since the last reported change."""
        return self._last == self._known

    def _read_signatures(self) -> _Signatures:
        return tuple(map(_signature, self._files))


def _signature(file: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        status = file.stat()
        return status.st_mtime_ns, status.st_ino, status.st_size
    return None


async def follow(
    watch: FileWatch, read_again: Callable[[], str], pause_s: float = CHECK_S, *, file_error: str = ""
) -> None:
    """Call ``read_again`` after each change, and until it succeeds; runs until cancelled.

    A file that cannot be read for a while, because of its permissions or because only one of two files was
    replaced, is tried again without a further change.

    Args:
        watch: made before the files were read for the first time, so that no change in between is lost.
        read_again: applies the new content and returns a line for the log. If it raises
            ConfigurationError, that is logged, and the content that was read before stays in force.
        pause_s: between two checks.
        file_error: the error of the first read, if it failed.
    """
    while True:
        await asyncio.sleep(pause_s)
        changed = watch.has_changed()
        if not changed and not (file_error and watch.is_settled):
            continue
        former_error, file_error = file_error, ""
        try:
            _log.info("%s", read_again())
        except ConfigurationError as error:
            file_error = str(error)
            if changed or file_error != former_error:
                _log.error("%s The content that was read before stays in force.", file_error)
        except Exception as error:
            file_error = repr(error)
            if changed or file_error != former_error:
                _log.exception(
                    "a changed file could not be read; the content that was read before stays in force"
                )
