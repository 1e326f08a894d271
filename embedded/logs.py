"""Triton's log lines become records of the logger ``tritonflare.triton``."""

from __future__ import annotations

import logging
import re
from collections import deque

_LINE = re.compile(r"^(?P<level>[IWEF])\d{4} [\d:.]+ \d+ (?:\S+:\d+\] )?(?P<text>.*)$")
# A start writes about sixty I lines, which matter only when debugging.
_LEVELS = {"I": logging.DEBUG, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
# A crash is reported outside Triton's own log format.
_ALARMING = re.compile(r"terminate called|what\(\):|Traceback|[Ee]rror|Aborted|Segmentation")
# Logged on every host without a GPU; where one is used, it matters.
_HARMLESS = re.compile(r"CUDA|DCGM|NVML|pinned memory|GPU", re.IGNORECASE)


class LogRelay:
    """Forwards lines to logging and keeps the last ones for an error message.

    Args:
        keep: how many lines.
        gpu: whether Triton uses a GPU, so that what it says of one is forwarded at its own level.
    """

    def __init__(self, keep: int = 40, *, gpu: bool = False) -> None:
        self._gpu = gpu
        self._logger = logging.getLogger("tritonflare.triton")
        self._tail: deque[str] = deque(maxlen=keep)

    def feed(self, line: str) -> None:
        """Forward one line of Triton's output."""
        text = line.rstrip()
        if not text:
            return
        self._tail.append(text)
        match = _LINE.match(text)
        level = _LEVELS[match["level"]] if match else logging.DEBUG
        if match is None and _ALARMING.search(text):
            level = logging.WARNING
        message = match["text"].strip('"') if match else text
        if not self._gpu and level < logging.CRITICAL and _HARMLESS.search(message):
            level = logging.DEBUG
        self._logger.log(level, "%s", message)

    def tail(self) -> str:
        """Return the last lines, unchanged, oldest first."""
        return "\n".join(self._tail)
