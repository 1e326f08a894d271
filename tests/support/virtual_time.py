"""An event loop without waiting: asyncio tests of timeouts that take no time."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, cast

P = ParamSpec("P")

_STEPS = 4
"""Iterations of the event loop in which everything that a piece of input sets off is done."""


class _VirtualSelector(selectors.DefaultSelector):
    """Advances the clock instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("the test waits for an event that cannot happen")
        if not ready:
            self.now += timeout or 0
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that skips the time until its next timer: `asyncio.sleep` returns at once."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test in a `VirtualTimeLoop`."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        loop = VirtualTimeLoop()
        try:
            loop.run_until_complete(cast(Any, test(*args, **kwargs)))
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(settle())
            loop.close()

    return run


async def settle() -> None:
    """Let the event loop do what is due, without time passing."""
    for _ in range(_STEPS):
        await asyncio.sleep(0)
