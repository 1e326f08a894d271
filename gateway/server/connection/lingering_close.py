"""Closes a connection so that the client receives its last response (RFC 9112, section 9.6)."""

from __future__ import annotations

import asyncio
import math

from gateway.server.connection.timeouts import LINGER_IDLE_S, LINGER_S, ConnectionTimer
from gateway.server.sockets import has_unread

LINGER_BYTES = 64 * 1024 * 1024
"""So much input at most is discarded behind the last response."""


class LingeringClose:
    """Closes one connection, at once or in stages.

    The kernel answers unread input on a closed socket with RST, which may destroy a response that the client
    has not read. So where the client may still be sending, the server half-closes, and reads and discards
    until the client closes too, within `LINGER_S`, `LINGER_IDLE_S` and `LINGER_BYTES`. TLS has no half-close
    in asyncio: there the server only reads on.

    Args:
        transport: the connection.
        timer: its timer.
        transfer_s: seconds without a byte sent after which the rest of a response is dropped.
    """

    def __init__(self, transport: asyncio.Transport, timer: ConnectionTimer, transfer_s: float) -> None:
        self._transport = transport
        self._timer = timer
        self._transfer_s = transfer_s
        self.discarded_bytes = 0
        self._is_lingering = False
        self._ends = math.inf

    def discard(self, count: int) -> None:
        """Count ``count`` bytes of input that are not parsed, and limit them."""
        self.discarded_bytes += count
        if self.discarded_bytes > LINGER_BYTES:
            if self._is_lingering:
                self.close()
            else:
                self._transport.pause_reading()

    def has_unread(self) -> bool:
        """Return whether there was input, or there is, that has not been parsed."""
        return self.discarded_bytes > 0 or has_unread(self._transport.get_extra_info("socket").fileno())

    def linger(self) -> None:
        """Half-close, and discard input until the client closes or a limit is reached."""
        self._is_lingering = True
        try:
            if self._transport.can_write_eof():
                self._transport.write_eof()
        except OSError:  # the client has sent RST, which the event loop has not read yet
            self.close()
            return
        self._transport.resume_reading()
        self._ends = asyncio.get_running_loop().time() + LINGER_S
        self._timer.start(LINGER_IDLE_S, self._check_linger, 0)

    def _check_linger(self, before: int) -> None:
        now = self.discarded_bytes + self._transport.get_write_buffer_size()
        if now == before or asyncio.get_running_loop().time() >= self._ends:
            self.close()
        else:
            self._timer.start(LINGER_IDLE_S, self._check_linger, now)

    def close(self) -> None:
        """Close once everything is sent, or once the client has received nothing for ``transfer_s``."""
        if not self._transport.is_closing():
            self._transport.close()
            self._check_sent(math.inf)

    def _check_sent(self, before: float) -> None:
        left = self._transport.get_write_buffer_size()
        if left < before:
            self._timer.start(self._transfer_s, self._check_sent, left)
        else:
            self._transport.abort()
