"""One ``grpc.aio`` channel to one address: it stays connected, and no call that was sent is cancelled.

``grpc.aio`` cancels a call at the server when the task that awaits it is cancelled, when its timeout is over,
when its object is collected and when its channel is closed. Triton 2.51 may crash on a cancelled inference
(docs/decisions/never-cancel.md). So no timeout is passed, call objects are kept until the server has
answered, and a caller awaits a future of its own, which the call's done callback resolves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import grpc
from grpc import ChannelConnectivity as State

from gateway.addresses import Address, authority
from gateway.triton.status import CallFailed, failure_of

_log = logging.getLogger("tritonflare.backend")

Options = tuple[tuple[str, int | str], ...]
"""gRPC channel arguments."""
CONNECT_TIMEOUT_S = 1.0
"""Calls wait so long for a connection; after that they fail while the attempt goes on."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 0.5
"""Triton is near: its return must show at once, so pauses between attempts stay well below a second."""
MOST_ABANDONED = 256
"""A connection with so many calls whose callers have gone before the answer is replaced."""
CLOSE_GRACE_S = 300.0
"""A connection that begins no more calls is closed after that time, even with calls under way."""
_OPTIONS: Options = (
    # A connection for each channel, and not through a proxy that the environment names.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    # `FailoverChannel` decides what is sent again.
    ("grpc.enable_retries", 0),
    # The longest time for one attempt, the server's SETTINGS frame included: it may be very busy.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", int(FIRST_PAUSE_S * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(LONGEST_PAUSE_S * 1000)),
    # Finds a server that vanished without a word while calls are under way. In grpcio 1.85 it is the ping's
    # own timeout that counts (60 s by default). BDP probes are pings too, and would meet it after 5 s of a
    # server that is only stopped for a moment.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.bdp_probe", 0),
    # An error message of Triton may carry a traceback; above the limit its status would be lost.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    ("grpc.primary_user_agent", "tritonflare"),
)


class AddressConnection:
    """The connection to one address; for the event loop in which it is made.

    Args:
        address: an IP address and a port.
        options: besides those that all connections have.
        changed: called when calls that wait for a connection should choose again.
    """

    def __init__(self, address: Address, options: Options, changed: Callable[[], None]) -> None:
        self._address = address
        self._changed = changed
        scheme = "ipv6" if ":" in address[0] else "ipv4"
        # The % of a scope (fe80::1%eth0) is escaped, as in any URI.
        target = f"{scheme}:{authority(address)}".replace("%", "%25")
        self._channel = grpc.aio.insecure_channel(target, _OPTIONS + options)
        self._calls: dict[object, asyncio.Future[None]] = {}
        """The calls under way; the future is done when the call is over, or its caller has gone."""
        self._idle = asyncio.Event()
        self._was_lost = False
        self.link: object | None = None
        """Another object for each time that it was connected; None while it is not."""
        self.failed = False
        """The last attempt to connect failed or takes long, or there will be no more."""
        self.closing: asyncio.Task[None] | None = None
        """Ends when the connection is closed; None while it may be used."""
        self._watching = asyncio.create_task(self._watch())

    @property
    def calls(self) -> int:
        """How many calls are under way, those included whose callers have gone."""
        return len(self._calls)

    async def call(self, method: str, message: bytes, metadata: grpc.aio.Metadata, timeout_s: float) -> bytes:
        """Send one message and return the one that comes back.

        Args:
            method: the path.
            message: the serialised request.
            metadata: headers.
            timeout_s: how long to wait; it is not sent to the server.

        Raises:
            CallFailed: the status is not OK, the connection was lost, or the time is over.
        """
        if self.closing is not None:
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, "connection closed")
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        method_call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
        call = method_call(message, metadata=metadata)
        self._calls[call] = over
        call.add_done_callback(self._done)
        timer = loop.call_later(timeout_s, _resolve, over)
        try:
            await over
        finally:
            timer.cancel()
            if not call.done():
                self._abandoned()
        if not call.done():
            raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time")
        if call.cancelled() and self.link is None:
            # By `abort`, perhaps: then awaiting it would look as if the caller had been cancelled.
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, "connection closed")
        try:
            return await call  # it is over: this neither waits nor cancels
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
        try:
            raise failure
        finally:
            del failure  # or this frame and the exception would hold each other

    def _done(self, call: object) -> None:
        _resolve(self._calls.pop(call))
        if self.closing is not None and not self._calls:
            self._idle.set()

    def _abandoned(self) -> None:
        if sum(over.done() for over in self._calls.values()) >= MOST_ABANDONED:
            self.leave()

    def leave(self) -> None:
        """Begin no more calls; close when those under way have ended."""
        if self.closing is None:
            self._watching.cancel()
            self.link, self.failed = None, True
            self.closing = asyncio.create_task(self._close())
            self._changed()

    def abort(self) -> None:
        """Close now; calls under way fail with UNAVAILABLE."""
        self.leave()
        self._idle.set()

    async def _close(self) -> None:
        if self._calls:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), CLOSE_GRACE_S)
        await self._channel.close()

    async def _watch(self) -> None:
        """Keep connecting, and notice when the connection is there or gone."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            late = loop.call_later(CONNECT_TIMEOUT_S, self._fail)
            try:
                state = self._channel.get_state(try_to_connect=True)
                while state is not State.READY:
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state()
                    if state is State.TRANSIENT_FAILURE:
                        self._fail()  # gRPC itself tries again
                    if state is State.IDLE:
                        break
            finally:
                late.cancel()
            if state is State.READY:
                self._connected()
                await self._channel.wait_for_state_change(state)
                self._lose()
            # A server that accepts connections and closes them must not keep us busy.
            await asyncio.sleep(began + FIRST_PAUSE_S - loop.time())

    def _connected(self) -> None:
        if self._was_lost:
            _log.info("connection to Triton at %s:%d: open again", *self._address)
        self.link, self.failed = object(), False
        self._changed()

    def _lose(self) -> None:
        if self.link is None:
            return
        self.link, self._was_lost = None, True
        text = "connection to Triton at %s:%d: lost with %d calls under way; connecting again"
        _log.warning(text, *self._address, len(self._calls))
        self._changed()

    def _fail(self) -> None:
        self.failed = True
        self._changed()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
