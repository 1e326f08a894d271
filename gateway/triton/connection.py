"""One ``grpc.aio`` channel to one address: it stays connected, and calls that were sent end by themselves.

``grpc.aio`` cancels a call at the server when the task that awaits it is cancelled, when its timeout is over,
when its object is collected and when its channel is closed. Triton 2.51 may crash on a cancelled inference
(ARCHITECTURE.md, "Coalescing"). So no timeout is passed, the call object is kept until the server has
answered, and callers await a future of their own that is resolved by the call's done callback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
from grpc import ChannelConnectivity as State

from gateway.targets import Address, authority
from gateway.triton.status import CallFailed, failure_of

_log = logging.getLogger("tritonflare.backend")

CONNECT_TIMEOUT_S = 1.0
"""Calls wait so long for a connection; after that they fail while the attempt goes on."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 0.5
"""Triton is near: its return must show at once, so pauses between attempts stay well below a second."""
MOST_ABANDONED = 256
"""Calls without an answer whose callers have left; a connection with more of them is replaced."""
LEAVE_S = 30.0
"""A connection that is no longer used waits so long for calls whose callers have left."""
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # One connection for each channel, never shared, and never through a proxy of the environment.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    # `Channel` decides what is sent again.
    ("grpc.enable_retries", 0),
    # The least time for an attempt, the server's SETTINGS included: it may be very busy.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", int(FIRST_PAUSE_S * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(LONGEST_PAUSE_S * 1000)),
    # Finds a server that vanished without a word while calls are under way.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Triton's error messages may carry a traceback; with more than this the status would be lost.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    ("grpc.primary_user_agent", "tritonflare"),
)


class AddressConnection:
    """The connection to one address; for the event loop in which it is made.

    Args:
        address: an IP address and a port.
        options: gRPC channel arguments besides those that all connections have.
        changed: called when calls that wait should choose a connection again.
    """

    def __init__(
        self, address: Address, options: tuple[tuple[str, int | str], ...], changed: Callable[[], None]
    ) -> None:
        self._address = address
        self._changed = changed
        scheme = "ipv6" if ":" in address[0] else "ipv4"
        # A scope (fe80::1%eth0) is escaped as in any URI.
        target = f"{scheme}:{authority(address)}".replace("%", "%25")
        self._channel = grpc.aio.insecure_channel(target, _OPTIONS + options)
        self._methods: dict[str, Any] = {}
        self._calls: dict[Any, asyncio.Future[None]] = {}
        """Each call under way, and what its caller waits for."""
        self._closed = False
        self._was_lost = False
        self._left = asyncio.Event()
        self._idle = asyncio.Event()
        """No call is under way; meaningful once it has left."""
        self.link: object | None = None
        """Stands for the present connection; None without one. Another connection is another object."""
        self.failed = False
        """The last attempt to connect failed, or takes long."""
        self._watching = asyncio.create_task(self._watch())
        self.task = asyncio.create_task(self._live())
        """Ends when the connection is closed."""

    @property
    def calls(self) -> int:
        """How many calls are under way, those included whose callers have left."""
        return len(self._calls)

    @property
    def is_clogged(self) -> bool:
        """The server keeps calls without answering them."""
        return sum(ended.done() for ended in self._calls.values()) >= MOST_ABANDONED

    async def call(self, method: str, message: bytes, metadata: grpc.aio.Metadata, timeout_s: float) -> bytes:
        """Send one message and return the one that comes back.

        Args:
            method: the path.
            message: the serialised request.
            metadata: headers.
            timeout_s: how long to wait; the server does not hear of it.

        Raises:
            CallFailed: the status is not OK, the connection was lost, or the time is over.
        """
        if self._left.is_set():
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, "closed")
        multicallable = self._methods.get(method)
        if multicallable is None:
            multicallable = self._methods[method] = self._channel.unary_unary(method)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        call = multicallable(message, metadata=metadata)
        self._calls[call] = ended
        call.add_done_callback(self._done)
        timer = loop.call_later(timeout_s, _resolve, ended)
        try:
            await ended
        finally:
            timer.cancel()
        if self._closed:
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, "closed")
        if not call.done():
            raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time")
        try:
            return await call  # type: ignore[no-any-return]  # it is over: this neither waits nor cancels
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
        try:
            raise failure
        finally:
            del failure  # or this frame and the exception would hold each other

    def check(self) -> None:
        """Notice now that the connection was lost, if it was."""
        if self.link is not None and self._channel.get_state() is not State.READY:
            self._lose()

    def leave(self) -> None:
        """Begin no more calls; close when those under way have ended."""
        self.link = None
        self._watching.cancel()
        self._left.set()

    async def close(self) -> None:
        """Close now; calls under way fail with UNAVAILABLE."""
        self._closed = True
        self.leave()
        await self._channel.close()

    def _done(self, call: Any) -> None:
        _resolve(self._calls.pop(call))
        if not self._calls:
            self._idle.set()

    async def _live(self) -> None:
        await self._left.wait()
        if self._calls:
            self._idle.clear()
            await asyncio.wait(self._calls.values())
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), LEAVE_S)
        await self._channel.close()

    async def _watch(self) -> None:
        """Keep connecting, and notice when the connection is there or gone."""
        loop = asyncio.get_running_loop()
        late = loop.call_later(CONNECT_TIMEOUT_S, self._fail)
        try:
            while True:
                began = loop.time()
                state = self._channel.get_state(try_to_connect=True)
                while state is not State.READY:
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state()
                    if state is State.TRANSIENT_FAILURE:
                        self._fail()  # gRPC itself tries again
                    if state is State.IDLE:
                        break
                else:
                    late.cancel()
                    self._connected()
                    await self._channel.wait_for_state_change(state)
                    self._lose()
                    late = loop.call_later(CONNECT_TIMEOUT_S, self._fail)
                # A server that accepts connections and closes them must not keep us busy.
                await asyncio.sleep(began + FIRST_PAUSE_S - loop.time())
        finally:
            late.cancel()

    def _connected(self) -> None:
        if self._was_lost:
            _log.info("connection to Triton at %s:%d: open again", *self._address)
        self.link, self.failed = object(), False
        self._changed()

    def _lose(self) -> None:
        if self.link is None:
            return
        self.link, self._was_lost = None, True
        _log.warning(
            "connection to Triton at %s:%d: lost, with %d calls under way; connecting again",
            *self._address,
            len(self._calls),
        )
        self._changed()

    def _fail(self) -> None:
        self.failed = True
        self._changed()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
