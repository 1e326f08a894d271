"""gRPC connections to all addresses of a target, and calls that are shared out to them.

A call goes to the address with the fewest calls under way; where several have equally few they take turns,
as gRPC's ``round_robin`` does. gRPC has no such policy, so each address gets a channel of its own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterable, Sequence
from functools import partial

import grpc

from gateway.addresses import Address, authority, targets
from gateway.triton.connection import LONGEST_PAUSE_S, AddressConnection, Options
from gateway.triton.status import CallFailed

_OTHER_ADDRESS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED)
"""A server is away, unloads its models (one that stops answers NOT_FOUND for seconds), or gave up."""
RESOLVE_S = 5.0
"""Pause between two look-ups of the names: new addresses get calls after that time."""

LOSS_SHOWS_S = 0.01
"""gRPC fails calls of a lost connection before it changes the channel's state, by a millisecond or two."""


class FailoverChannel:
    """Unary gRPC calls to a target; for the event loop in which it is opened.

    Args:
        url: see `targets`.
        max_message_bytes: largest message to take.
        metadata: headers that every call carries.
    """

    def __init__(self, url: str, max_message_bytes: int, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self._targets = targets(url)
        self._max_message_bytes = max_message_bytes
        self._metadata = tuple(metadata)
        self._headers = _headers(metadata)
        self._options: Options = (
            ("grpc.default_authority", authority(self._targets[0])),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
        )
        self._found: dict[Address, list[Address]] = {}
        """What the last look-up that succeeded found for each of the targets."""
        self._unseen = set(self._targets)
        """Targets whose first look-up is not over."""
        self._connections: dict[Address, AddressConnection] = {}
        self._opened: set[AddressConnection] = set()
        """All that are not closed, also those that only finish their calls."""
        self._turn = 0
        self._changed: asyncio.Future[None] | None = None
        """What calls without a connection wait for; None while no call does."""
        self._resolvers: list[asyncio.Task[None]] = []
        self._ended = False

    async def open(self) -> None:
        """Begin to connect; calls wait until the first attempt at each address has succeeded or failed."""
        self._resolvers = [asyncio.create_task(self._resolve(target)) for target in self._targets]

    async def close(self) -> None:
        """Close all connections at once; calls under way fail with UNAVAILABLE."""
        self._end()
        for connection in self._opened:
            connection.abort()
        await self._closed()

    async def drain(self) -> None:
        """Begin no more calls, and return when those under way have ended.

        Calls that still wait for a connection fail with UNAVAILABLE, so that they can go elsewhere.
        Cancelled, it leaves those under way alone: they go on, and their connections close after them.
        """
        self._end()
        await self._closed()

    def _end(self) -> None:
        self._ended = True
        for resolver in self._resolvers:
            resolver.cancel()
        self._connect_to(())
        self._wake()

    async def _closed(self) -> None:
        closing = [connection.closing for connection in self._opened if connection.closing is not None]
        await asyncio.gather(*self._resolvers, return_exceptions=True)
        if closing:
            await asyncio.wait(closing)

    async def unary(
        self, method: str, message: bytes, timeout_s: float, metadata: Sequence[tuple[str, str]] = ()
    ) -> bytes:
        """Call ``method`` (``/package.Service/Method``) with one message; return the one that comes back.

        Args:
            method: the path.
            message: the serialised request.
            timeout_s: seconds for everything, connecting included; it is not sent to the server.
            metadata: headers of this call alone.

        What one server cannot take goes to the next, once to each: no method that is called here changes
        anything, so a repetition does no harm. A caller that is cancelled leaves its call to end by itself.

        Raises:
            CallFailed: with the status; UNAVAILABLE while no address can be connected to, and when the
                connection was lost or the server refused the call.
        """
        if len(message) > self._max_message_bytes:
            raise CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED)
        headers = _headers((*self._metadata, *metadata)) if metadata else self._headers
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout_s
        tried: list[object] = []
        connection = self._pick() or await self._wait(ends)
        while True:
            link = connection.link
            try:
                return await connection.call(method, message, headers, ends - loop.time())
            except CallFailed as failure:
                if failure.code not in _OTHER_ADDRESS:
                    raise
                tried.append(link)
                another = self._pick(tried)
                if another is None and len(tried) == 1:
                    # The same server again only where it was the connection that failed, and only once.
                    await asyncio.sleep(LOSS_SHOWS_S)
                    another = await self._wait(ends) if connection.link is not link else None
                if another is None:
                    raise
                connection = another

    def _pick(self, tried: Sequence[object] = ()) -> AddressConnection | None:
        """Of the addresses that are connected, the one with the fewest calls; of equals, the next in turn.

        So a server that is silent keeps its share of the calls, and not all of them.
        """
        usable = [each for each in self._connections.values() if each.link not in (None, *tried)]
        if not usable:
            return None
        self._turn += 1
        first = self._turn % len(usable)
        return min(usable[first:] + usable[:first], key=lambda connection: connection.calls)

    async def _wait(self, ends: float) -> AddressConnection:
        loop = asyncio.get_running_loop()
        while True:
            connection = self._pick()
            if connection is not None:
                return connection
            if self._ended or (self._all_failed and not self._unseen):
                raise CallFailed(grpc.StatusCode.UNAVAILABLE, "cannot connect")
            left_s = ends - loop.time()
            if left_s <= 0:
                raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED)
            if self._changed is None:
                self._changed = loop.create_future()
            await asyncio.wait((self._changed,), timeout=left_s)

    @property
    def _all_failed(self) -> bool:
        return all(connection.failed for connection in self._connections.values())

    def _wake(self) -> None:
        """Have the calls that wait for a connection choose again, in their order."""
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)

    async def _resolve(self, target: Address) -> None:
        """Keep a connection to each address of a target; while the look-up fails, to those found before."""
        loop = asyncio.get_running_loop()
        host, port = target
        while True:
            try:
                infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                self._found[target] = [(str(info[4][0]), port) for info in infos]
            except (OSError, UnicodeError):
                pass  # what was found before stays
            self._unseen.discard(target)
            self._connect_to([address for found in self._found.values() for address in found])
            self._wake()
            looked = loop.time()
            await asyncio.sleep(LONGEST_PAUSE_S)
            while loop.time() < looked + RESOLVE_S and not self._all_failed:
                await asyncio.sleep(LONGEST_PAUSE_S)

    def _connect_to(self, addresses: Collection[Address]) -> None:
        for address, connection in tuple(self._connections.items()):
            if address not in addresses:
                connection.leave()
            if connection.closing is not None:
                del self._connections[address]
                connection.closing.add_done_callback(partial(self._forget, connection))
        for address in addresses:
            if address not in self._connections:
                self._connections[address] = AddressConnection(address, self._options, self._wake)
                self._opened.add(self._connections[address])

    def _forget(self, connection: AddressConnection, _closing: asyncio.Task[None]) -> None:
        self._opened.discard(connection)


def _headers(metadata: Iterable[tuple[str, str]]) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(*((name.lower(), value) for name, value in metadata))
