"""ModelStreamInfer: one response for each request of a stream, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

MOST_PIPELINED = 16
"""Requests of one stream that are answered at the same time; further ones wait in the connection."""
_END_S = 0.1
"""Time for the end of a stream to arrive once the server drains and all answers are sent."""

BeginRead = Callable[[], asyncio.Task[object]]
"""Begins to read the next message; anything but bytes is the end of the stream."""


async def answer_stream(
    begin_read: BeginRead,
    answer: Callable[[bytes], Awaitable[object]],
    write: Callable[[object], Awaitable[None]],
    draining: asyncio.Event,
) -> bool:
    """Answer the messages of a stream until the client ends it, or the server drains.

    Args:
        begin_read: begins to read the next message; the task is not cancelled.
        answer: makes the response of a message; never raises.
        write: sends a response; returns when the client has room for it.
        draining: no message is read once it is set.

    Returns:
        Whether the client ended the stream.
    """
    answers: asyncio.Queue[asyncio.Task[object] | None] = asyncio.Queue()
    room = asyncio.Semaphore(MOST_PIPELINED)
    under_way: set[asyncio.Task[object]] = set()

    unsent = 0

    async def accept() -> tuple[asyncio.Task[object], bool]:
        """Return the last read, which a drain may have overtaken, and whether answers were still to come."""
        nonlocal unsent
        try:
            while isinstance(message := await _unless_draining(reading := begin_read(), draining), bytes):
                await room.acquire()
                task = asyncio.ensure_future(answer(message))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                answers.put_nowait(task)
                unsent += 1
            return reading, unsent > 0
        finally:
            answers.put_nowait(None)

    accepting = asyncio.create_task(accept())
    try:
        while (task := await answers.get()) is not None:
            await write(await task)
            room.release()
            unsent -= 1
        last, was_busy = await accepting
        # A client that has just got its last answer may be about to end the stream, which then did not fail.
        await asyncio.wait((last,), timeout=_END_S if was_busy else 0)
        return last.done() and not isinstance(last.result(), bytes)
    finally:
        accepting.cancel()
        for task in under_way:
            task.cancel()
        await asyncio.gather(accepting, *under_way, return_exceptions=True)


async def _unless_draining(reading: asyncio.Task[object], draining: asyncio.Event) -> object:
    """Return the next message; None once the server drains."""
    waiting = asyncio.ensure_future(draining.wait())
    try:
        await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else None
    finally:
        waiting.cancel()
