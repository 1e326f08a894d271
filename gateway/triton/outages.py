"""Log lines about a Triton that fails calls: at once, then with growing pauses, and when it is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import grpc

from gateway.triton.status import CallFailed

_log = logging.getLogger("tritonflare.backend")

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_QUIET_S = 10.0
"""After so long without a failure, the next one is logged at once."""
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Outages:
    """Logs the failed calls of one Triton without a line for each of them.

    Args:
        url: its address.
        clock: seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._pauses: dict[tuple[str, str], _Pause] = {}
        """By kind of failure; statuses and reasons are few."""
        self._away_since: float | None = None

    def failed(self, call: str, failure: CallFailed, level: int = logging.WARNING) -> None:
        """Log a failed call, unless it is a warning like the last ones."""
        now = self._clock()
        pause = self._pauses.setdefault((failure.code.name, failure.reason), _Pause())
        if pause.is_over(now) or level > logging.WARNING:
            _log.log(
                level,
                "%s: %s (%s) from Triton at %s; Triton's own log may say why",
                call,
                failure.code.name,
                failure.reason,
                self._url,
            )
            if failure.code in _AWAY and self._away_since is None:
                self._away_since = now

    def worked(self) -> None:
        """Log that Triton is back, if it was logged as away."""
        if self._away_since is not None:
            _log.info("Triton at %s answers again, after %.1f s", self._url, self._clock() - self._away_since)
            self._away_since = None


class _Pause:
    """The growing pause between two lines of one kind."""

    def __init__(self) -> None:
        self._length_s = _FIRST_PAUSE_S
        self._last_line = self._last_failure = float("-inf")

    def is_over(self, now: float) -> bool:
        """Count a failure; return whether it is to be logged."""
        quiet_s, self._last_failure = now - self._last_failure, now
        if quiet_s >= _QUIET_S:
            self._length_s = _FIRST_PAUSE_S
        elif now - self._last_line >= self._length_s:
            self._length_s = min(2 * self._length_s, _LONGEST_PAUSE_S)
        else:
            return False
        self._last_line = now
        return True
