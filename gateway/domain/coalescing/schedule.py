"""When the next call of a queue leaves, and when the next deadline is checked."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

GATHER_SHARE = 0.05
"""A free slot waits for this share of the time that calls take, while other calls are under way."""
LONGEST_GATHER_S = 0.001
"""Upper bound of that wait, and the least that uvloop's timers resolve: below half of it is the next turn."""
_SMOOTHED_CALLS = 8


class GatherWindow:
    """How long a free slot waits for more texts, learned from how long calls take."""

    __slots__ = ("_call_s",)

    def __init__(self) -> None:
        self._call_s = 0.0
        """Smoothed duration of a call."""

    @property
    def seconds(self) -> float:
        """The window; 0 before the first call has ended."""
        return min(GATHER_SHARE * self._call_s, LONGEST_GATHER_S)

    def observe(self, call_s: float) -> None:
        """Learn from a call that took ``call_s`` seconds."""
        self._call_s += (call_s - self._call_s) / _SMOOTHED_CALLS


class EarliestTimer:
    """Calls back once, in the running loop, at the earliest of the times that were requested since."""

    __slots__ = ("_callback", "_handle", "at")

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._handle: asyncio.Handle | None = None
        self.at = math.inf
        """When it calls back, on the loop's clock; minus infinity for this turn of the loop."""

    def request(self, at: float) -> None:
        """Call back at ``at`` or earlier; infinity asks for nothing."""
        if at < self.at:
            if self._handle is not None:
                self._handle.cancel()
            self.at, self._handle = at, asyncio.get_running_loop().call_at(at, self._fire)

    def request_soon(self) -> None:
        """Call back at the end of this turn of the loop."""
        if self.at != -math.inf:
            if self._handle is not None:
                self._handle.cancel()
            self.at, self._handle = -math.inf, asyncio.get_running_loop().call_soon(self._fire)

    def cancel(self) -> None:
        """Call back no more, until asked again."""
        if self._handle is not None:
            self._handle.cancel()
        self.at, self._handle = math.inf, None

    def _fire(self) -> None:
        self.at, self._handle = math.inf, None
        self._callback()
