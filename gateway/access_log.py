"""The access log: one line a request, written in blocks.

Python's logging takes a tenth of the time of a whole request to make one record of it (ARCHITECTURE.md
has the measurement), so these lines go round it, to the same stream and in the same form.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from contextlib import suppress

FLUSH_S = 0.1
"""Longest time that a line waits for others; what is killed at once loses no more than these."""
_BLOCK = 256


class AccessLog:
    """Lines about requests, to stderr; use it inside the event loop.

    Args:
        level: the log level; requests to the API are lines of level ``info``, those of operators ``debug``.
        share: how many of the successful requests are written, 0 to 1; others always are.
    """

    def __init__(self, level: str, share: float) -> None:
        self._least = logging.getLevelName(level.upper())
        self._share = share
        self._owed = 0.0
        self._lines: list[str] = []
        self._second = -1
        self._clock = ""

    def add(self, *, api: bool, ok: bool, line: str) -> None:
        """Take one line, unless the level or the share leave it out."""
        level = logging.INFO if api else logging.DEBUG
        if level < self._least:
            return
        if ok and self._share < 1:
            self._owed += self._share
            if self._owed < 1:
                return
            self._owed -= 1
        name = "INFO" if api else "DEBUG"
        self._lines.append(f"{self._now()} {name} tritonflare.access: {line}\n")
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        elif len(self._lines) >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        block, self._lines = "".join(self._lines), []
        if block:
            # A full disk or a reader that has gone must not cost anybody an answer.
            with suppress(OSError, ValueError):
                sys.stderr.write(block)
                sys.stderr.flush()

    def _now(self) -> str:
        """Local time with milliseconds; the seconds are spelt out once each."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
        return f"{self._clock}.{int(1000 * (now - second)):03d}"
