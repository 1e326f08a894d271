"""Ends a connection so that its last answer arrives."""

from __future__ import annotations

import asyncio
import math

LINGER_S = 30.0
LINGER_IDLE_S = 2.0
LINGER_BYTES = 64 * 1024 * 1024
"""How long, for how long without a byte, and how much is read and thrown away behind the last answer: to
close on bytes that were not read would reset the connection, and the caller would see that instead of the
answer (RFC 9112, section 9.6)."""


class LingeringClose:
    """The end of one connection.

    Args:
        transport: what is to be closed.
        transfer_s: time in which a caller must take something of what was written for him.
    """

    def __init__(self, transport: asyncio.Transport, transfer_s: float) -> None:
        self._transport = transport
        self._transfer_s = transfer_s
        self._loop = asyncio.get_running_loop()
        self.lingers = False
        self.discarded = 0
        """Bytes that came and were not read."""
        self._ends = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Forget all about it: the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def discard(self, count: int) -> None:
        """Count what comes although nothing is read any more."""
        self.discarded += count
        if self.discarded > LINGER_BYTES:
            if self.lingers:
                self.close()
            else:
                self._transport.pause_reading()

    def linger(self) -> None:
        """End our side, and read on for a while; in TLS, which knows no half, just read on."""
        self.lingers = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        self._ends = self._loop.time() + LINGER_S
        self._timer = self._loop.call_later(LINGER_IDLE_S, self._watch_discarded, 0)

    def _watch_discarded(self, before: int) -> None:
        now = self.discarded + self._transport.get_write_buffer_size()
        if now == before or self._loop.time() >= self._ends:
            self.close()
        else:
            self._timer = self._loop.call_later(LINGER_IDLE_S, self._watch_discarded, now)

    def close(self) -> None:
        """Close when what was written is sent, as long as the caller takes any of it."""
        if not self._transport.is_closing():
            self.cancel()
            self._transport.close()
            self._watch_sent(math.inf)

    def _watch_sent(self, before: float) -> None:
        left = self._transport.get_write_buffer_size()
        if left < before:
            self._timer = self._loop.call_later(self._transfer_s, self._watch_sent, left)
        else:
            self._transport.abort()

    async def is_taken(self, writable: asyncio.Future[None]) -> bool:
        """Wait until the caller has taken enough of his answers, as long as he takes any."""
        before: float = math.inf
        while not writable.done() and (left := self._transport.get_write_buffer_size()) < before:
            before = left
            await asyncio.wait((writable,), timeout=self._transfer_s)
        return writable.done()
