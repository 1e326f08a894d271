"""How the supervisor of an embedded Triton notifies a gateway, or all of its workers."""

from __future__ import annotations

import asyncio
from typing import Protocol


class TritonEvents(Protocol):
    """A gateway, or several that act as one."""

    def triton_restarted(self, reason: str, /) -> None:
        """Count a restart of Triton after a fault; ``reason`` is one of RESTART_REASONS."""
        ...

    async def hand_over(self, url: str, /) -> None:
        """Send new calls to another Triton; return when none is under way at the old one.

        Raises:
            AiError: the new one cannot be reached; calls go to the present one as before. With several
                workers this means that none can reach it: if some can, the others are replaced.
        """
        ...


class TritonEventRelay:
    """Relays events to a gateway that is built later; `gateway.main.serve` connects it.

    For use inside the gateway's event loop.
    """

    def __init__(self) -> None:
        self._receiver: TritonEvents | None = None
        self._early_restarts: list[str] = []
        self._connected = asyncio.Event()

    def connect(self, receiver: TritonEvents) -> None:
        """Relay to ``receiver`` from now on, restarts before this call included."""
        self._receiver = receiver
        self._connected.set()
        for reason in self._early_restarts:
            receiver.triton_restarted(reason)
        self._early_restarts.clear()

    def triton_restarted(self, reason: str) -> None:
        """See `TritonEvents`."""
        if self._receiver is None:
            self._early_restarts.append(reason)
        else:
            self._receiver.triton_restarted(reason)

    async def hand_over(self, url: str) -> None:
        """See `TritonEvents`; waits for the gateway."""
        await self._connected.wait()
        if self._receiver is not None:
            await self._receiver.hand_over(url)
