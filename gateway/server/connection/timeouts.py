"""The timeouts of a connection, and its only timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

DRAIN_HEAD_S = 1.0
"""Time for a request head that is arriving when the server drains."""
HALF_CLOSE_PROBE_S = 0.1
"""Interval at which a half-closed connection is probed for a client that is gone."""
LINGER_S = 30.0
"""Longest time for which input is discarded behind the last response."""
LINGER_IDLE_S = 2.0
"""Time without a byte after which discarding ends."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits that the application sets, in seconds."""

    keep_alive_s: float
    """For the first byte of a request, on a new connection or after a response."""
    transfer_s: float
    """For a complete request head once its first byte has arrived, for a TLS handshake, and for a client to
    receive at least something of a response."""


class ConnectionTimer:
    """The one timer of a connection: to start it replaces what was scheduled before."""

    __slots__ = ("_handle", "_loop", "_phase_started")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._phase_started = self._loop.time()

    def begin_phase(self) -> None:
        """Note that the connection has become idle, or that a head has begun to arrive."""
        self._phase_started = self._loop.time()

    def phase_s(self) -> float:
        """Return the seconds since `begin_phase`."""
        return self._loop.time() - self._phase_started

    def start(self, delay_s: float, callback: Callable[..., object], *args: object) -> None:
        """Call ``callback(*args)`` in ``delay_s`` seconds."""
        self.cancel()
        self._handle = self._loop.call_later(delay_s, callback, *args)

    def cancel(self) -> None:
        """Call nothing."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
