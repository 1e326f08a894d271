"""Where calls come from: gRPC's asyncio server, without its loop that takes calls.

That loop decodes the path of every call as UTF-8 and ends when it is not: one request from anybody would
stop the server (grpcio 1.85.1, ``AioServer._server_main_loop``). Here the known methods are registered with
gRPC's core, which compares bytes, and all other calls are UNIMPLEMENTED whatever their path is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

_UNKNOWN_METHOD = "unknown"
_TAKEN_AT_ONCE = 16
"""Calls of a method that gRPC hands over in one turn of the event loop, so that floods are refused fast."""


def _without_metadata(record: logging.LogRecord) -> bool:
    """Drop gRPC's errors about metadata that is not UTF-8: they contain it, be it a token."""
    return not str(record.msg).startswith("Invalid encoding on")


class HandlerSource(Protocol):
    """Finds the handlers of calls; see `Front`."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> object | None:
        """Return the handler of a call."""
        ...


class CallSource(cygrpc.AioServer):  # type: ignore[misc]
    """A server whose calls are all answered by one source of handlers.

    Args:
        handlers: finds the handler of each call to a known method.
        methods: the paths of the known methods.
        options: gRPC's channel arguments.
    """

    def __init__(
        self, handlers: HandlerSource, methods: Iterable[str], options: Sequence[tuple[str, int]]
    ) -> None:
        self._event_loop = asyncio.get_running_loop()
        logging.getLogger(cygrpc.__name__).addFilter(_without_metadata)
        super().__init__(self._event_loop, None, (), (), tuple(options), None)
        self._handlers = handlers
        self._tasks: set[asyncio.Task[None]] = set()
        # The handlers are found by `resolve_handler`; gRPC needs the names.
        self.add_registered_method_handlers(dict.fromkeys(methods))

    def resolve_handler(self, handler_call_details: grpc.HandlerCallDetails) -> object | None:
        """Return the handler of a call; None if its method is unknown."""
        if handler_call_details.method == _UNKNOWN_METHOD:
            return None
        return self._handlers.service(handler_call_details)

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        """Take the calls of a method, or of all unknown ones, until the server stops.

        gRPC's loop calls this once for each method, waits for the first call, and calls it again. The future
        here is done only when the server stops, which ends the loop.
        """
        stopped: asyncio.Future[Any] = self._event_loop.create_future()
        for _ in range(_TAKEN_AT_ONCE):
            self._keep(self._take_calls(method, stopped))
        return stopped

    async def _take_calls(self, method: bytes | None, stopped: asyncio.Future[Any]) -> None:
        name = _UNKNOWN_METHOD if method is None else method.decode()
        while True:
            try:
                call = await (
                    self._request_call() if method is None else self._request_registered_call(method)
                )
            except cygrpc._RequestCallError as exc:
                if self.is_running():
                    continue
                if not stopped.done():
                    stopped.set_exception(exc)
                return
            self._keep(cygrpc._schedule_rpc_coro(self._handle(name, call), call, self._event_loop, name))

    async def _handle(self, name: str, call: object) -> None:
        try:
            await cygrpc._handle_rpc(name, self, (), call, self._event_loop, False)
        except cygrpc.ExecuteBatchError:
            # The client has gone. gRPC logs this as an error, with a traceback, if it has not noticed yet.
            raise asyncio.CancelledError from None

    def _keep(self, coroutine: Any) -> None:
        task = self._event_loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
