"""The deadline of one request, and what happens when its client disconnects."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from gateway.domain.errors import ClientDisconnected, DeadlineExceeded


class DisconnectSource(Protocol):
    """Where a request came from."""

    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Have ``callback`` called once the client has disconnected, at once if that is so already."""
        ...


class RequestDeadline:
    """Ends the block it guards when time is up or when the client disconnects.

    It cancels the current task and turns that cancellation into DeadlineExceeded or ClientDisconnected.
    One timer covers the body, the queue and the inference, without a task of its own for each step.

    Args:
        timeout_s: the time limit.
        patience_s: how long the client itself waits, if that is shorter. It ends the block earlier and leaves
            `remaining_s` as it is: what has been sent to Triton holds its slot for as long as any other call,
            or clients with short deadlines would have more slots than others.
    """

    def __init__(self, timeout_s: float, patience_s: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._patience_s = timeout_s if patience_s is None else min(patience_s, timeout_s)
        self._reason: type[DeadlineExceeded | ClientDisconnected] | None = None
        self._connection: DisconnectSource | None = None

    def __enter__(self) -> RequestDeadline:
        self._task = asyncio.current_task()
        self._ends = time.monotonic() + self._timeout_s
        self._timer = self._loop.call_later(self._patience_s, self.expire)
        return self

    def expire(self) -> None:
        """End the block now, as if time were up."""
        self._end(DeadlineExceeded)

    def set_patience(self, patience_s: float | None) -> None:
        """End the block ``patience_s`` after its beginning, whatever it was; None changes nothing.

        It still ends at the time limit, and `remaining_s` stays as it is.
        """
        if patience_s is None:
            return
        self._timer.cancel()
        ends = self._ends - self._timeout_s + min(patience_s, self._timeout_s)
        self._timer = self._loop.call_later(max(0.0, ends - time.monotonic()), self.expire)

    def remaining_s(self) -> float:
        """Seconds left of the time limit."""
        return self._ends - time.monotonic()

    def watch_for_disconnect(self, connection: DisconnectSource | None) -> None:
        """From now on, end the block when the client disconnects; receiving the request notices by itself."""
        self._connection = connection
        if connection is not None:
            connection.on_disconnect(self._disconnected)

    def _disconnected(self) -> None:
        self._end(ClientDisconnected)

    def _end(self, reason: type[DeadlineExceeded | ClientDisconnected]) -> None:
        if self._reason is None and self._task is not None:
            self._reason = reason
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._connection is not None:
            self._connection.on_disconnect(None)
        if self._reason is not None and isinstance(error, asyncio.CancelledError):
            if sys.version_info >= (3, 11) and self._task is not None:
                self._task.uncancel()
            raise self._reason from error  # made here: one that is held would hold this frame
