"""How whoever looks after Triton, in the same program, reaches a gateway that serves."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Receiver(Protocol):
    """A gateway, or several that act as one."""

    def triton_restarted(self, reason: str, /) -> None:
        """Count a start of Triton after a fault; ``reason`` is one of few."""
        ...

    async def move(self, url: str, /) -> None:
        """Send new calls to another Triton; return when none is under way at the old one.

        Raises:
            AiError: the new one cannot be reached; calls go to the present one as before. Of several
                processes that is so if none can reach it: if some can, the others are replaced.
        """
        ...


class Upstream:
    """Given to `gateway.main.serve`; for use inside its event loop."""

    def __init__(self) -> None:
        self._receiver: Receiver | None = None
        self._early: list[str] = []
        self._connected = asyncio.Event()

    def connect(self, receiver: Receiver) -> None:
        """Called by the gateway when it is there."""
        self._receiver = receiver
        self._connected.set()
        for reason in self._early:
            receiver.triton_restarted(reason)
        self._early.clear()

    def restarted(self, reason: str) -> None:
        """Say that Triton was started anew."""
        if self._receiver is None:
            self._early.append(reason)
        else:
            self._receiver.triton_restarted(reason)

    async def move(self, url: str) -> None:
        """Say that Triton is somewhere else now; see `Receiver.move`."""
        await self._connected.wait()
        if self._receiver is not None:
            await self._receiver.move(url)
