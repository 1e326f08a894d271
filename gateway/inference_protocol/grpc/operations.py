"""Reads and writes the messages of calls; an operation that gRPC has begun is never cancelled.

grpc.aio frees a message when the coroutine that waits for the operation goes on. If its task is cancelled
instead, or if the operation fails, the message is lost to the process: a client that cancels at the right
moment could fill the memory with messages of its own (grpcio 1.85, ``execute_batch`` in
``callback_common.pyx.pxi``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

from gateway.domain.errors import DeadlineExceeded

CANCELLATION_S = 0.1
"""Time in which gRPC cancels the task of a call that its client has ended."""

Context = grpc.aio.ServicerContext[Any, Any]
_Result = TypeVar("_Result")


class Operations:
    """The operations under way; they end at the latest with their calls."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin_read(self, context: Context) -> asyncio.Task[object]:
        """Begin to read the next message of a call; the result is bytes, or something else at its end."""
        return self._begin(context.read())

    async def read(self, context: Context, timeout_s: float | None = None) -> object:
        """Return the next message of a call: bytes, or something else at its end.

        Raises:
            DeadlineExceeded: it has not arrived in time.
        """
        reading = self.begin_read(context)
        await asyncio.wait((reading,), timeout=timeout_s)
        if not reading.done():
            raise DeadlineExceeded
        return reading.result()

    async def write(self, context: Context, message: object) -> None:
        """Send a message; return when the client has room for it."""
        writing = self._begin(context.write(message))
        await asyncio.wait((writing,))
        writing.result()

    def _begin(self, operation: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.get_running_loop().create_task(operation)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # of a call that has ended meanwhile; asyncio would log it
