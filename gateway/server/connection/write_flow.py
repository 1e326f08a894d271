"""Back-pressure of responses: a client that does not read them."""

from __future__ import annotations

import asyncio
import math


class WriteFlow:
    """Holds the next response back while the transport's write buffer is full.

    Args:
        transport: where responses are written.
        stall_s: seconds without a byte sent after which the client counts as gone.
    """

    __slots__ = ("_stall_s", "_transport", "_writable", "is_paused")

    def __init__(self, transport: asyncio.Transport, stall_s: float) -> None:
        self._transport = transport
        self._stall_s = stall_s
        self._writable: asyncio.Future[None] | None = None
        self.is_paused = False
        """Whether nothing may be written now."""

    def pause(self) -> None:
        """Note that the write buffer is above its high-water mark."""
        self.is_paused = True
        self._writable = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        """Note that the write buffer is below its low-water mark, or that the connection is lost."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self.is_paused, self._writable = False, None

    async def resumed(self) -> bool:
        """Wait until more may be written; return False if no byte was sent for ``stall_s`` seconds."""
        writable = self._writable
        before: float = math.inf
        while writable is not None and not writable.done():
            left = self._transport.get_write_buffer_size()
            if left >= before:
                return False
            before = left
            await asyncio.wait((writable,), timeout=self._stall_s)
        return True
