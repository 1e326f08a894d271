"""Connections to all addresses of a target, and calls that are shared out to them.

A connection to each address, made anew with a short back-off when it is lost; a call goes to the one with
the fewest calls under way, and where that is all the same they take turns, as gRPC's ``round_robin`` does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Sequence

import grpc

from gateway.addresses import Address, authority, targets
from gateway.triton.frames import Header, header_block
from gateway.triton.http2 import Connection
from gateway.triton.status import CallFailed

_log = logging.getLogger("tritonflare.backend")

CONNECT_TIMEOUT_S = 1.0
"""Time for a connection to come about; whoever waits for a server that has not greeted by then is told."""
GREET_TIMEOUT_S = 3.0
"""Time for the server to greet once it is connected: it may be very busy."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 0.5
"""Triton is near: its return must show at once, so pauses between attempts stay well below a second."""
_ELSEWHERE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED)
"""A server is away, unloads its models (one that stops answers NOT_FOUND for seconds), or gave up."""
RESOLVE_S = 5.0
"""Pause between two looks at the addresses behind a name: new ones get calls after that time."""


def _encoded(metadata: Sequence[tuple[str, str]]) -> list[Header]:
    return [(name.lower().encode(), value.encode()) for name, value in metadata]


class _Line:
    """One address: its connection, made again and again until `end`.

    Args:
        address: the address.
        max_message_bytes: largest message to take.
        opened: where every connection is as long as it is open.
        changed: called when a call that waits should look again.
    """

    def __init__(
        self,
        address: Address,
        max_message_bytes: int,
        opened: set[Connection],
        changed: Callable[[], None],
    ) -> None:
        self._address = address
        self._max_message_bytes = max_message_bytes
        self._opened = opened
        self._changed = changed
        self._turn = asyncio.Event()
        self._ended = False
        self._lost = False
        """There was a connection before."""
        self.connection: Connection | None = None
        self.failed = False
        """The last attempt to connect did not succeed, or takes long."""
        self.task = asyncio.create_task(self._keep())

    def end(self) -> None:
        """Give the address up; calls under way go on."""
        self._ended = True  # wait_for may swallow the cancellation
        self.task.cancel()
        if self.connection is not None:
            self.connection.leave()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while not self._ended:
            began = loop.time()
            if await self._connect():
                # A server that greets and leaves must not keep us busy.
                await asyncio.sleep(began + FIRST_PAUSE_S - loop.time())
                pause_s = FIRST_PAUSE_S
            else:
                self._fail()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _connect(self) -> bool:
        """Be connected until either side leaves; tell whether the server greeted at all."""
        loop = asyncio.get_running_loop()
        connection = Connection(self._max_message_bytes, self._told)
        late = [loop.call_later(CONNECT_TIMEOUT_S, self._fail)]
        try:
            await asyncio.wait_for(
                loop.create_connection(lambda: connection, *self._address), CONNECT_TIMEOUT_S
            )
            late.pop().cancel()  # somebody is there, if only busy: wait for the greeting
            self._opened.add(connection)
            connection.closed.add_done_callback(lambda _: self._opened.discard(connection))
            late.append(loop.call_later(GREET_TIMEOUT_S, connection.abort))
            await self._until(lambda: connection.usable or connection.closed.done())
        except (OSError, asyncio.TimeoutError):
            return False
        finally:
            for timer in late:
                timer.cancel()
            if self._ended or not connection.usable:
                connection.abort()
        if not connection.usable:
            return False
        self.connection, self.failed = connection, False
        self._changed()
        if self._lost:
            _log.info("connection to Triton at %s:%d: open again", *self._address)
        await self._until(lambda: not connection.usable)
        if not self._ended:
            self._lost = True
            _log.warning(
                "connection to Triton at %s:%d: %s; connecting again", *self._address, connection.end
            )
        return True

    async def _until(self, met: Callable[[], bool]) -> None:
        while not (met() or self._ended):
            self._turn.clear()
            await self._turn.wait()

    def _told(self) -> None:
        self._turn.set()
        self._changed()

    def _fail(self) -> None:
        self.failed = True
        self._changed()


class Channel:
    """Unary gRPC calls to a target; for the event loop in which it is opened.

    Args:
        url: see `targets`.
        max_message_bytes: largest message to take.
        metadata: headers that every call carries.
    """

    def __init__(self, url: str, max_message_bytes: int, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self._targets = targets(url)
        self._max_message_bytes = max_message_bytes
        self._metadata = _encoded(metadata)
        self._heads: dict[str, bytes] = {}
        self._found: dict[Address, list[Address]] = {}
        """What the last look-up that succeeded found for each of the targets."""
        self._unseen = set(self._targets)
        """Targets whose first look-up is not over."""
        self._lines: dict[Address, _Line] = {}
        self._opened: set[Connection] = set()
        """All that are open, also those that only finish their calls."""
        self._turn = 0
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._resolvers: list[asyncio.Task[None]] = []
        self._ended = False

    async def open(self) -> None:
        """Begin to connect; calls wait until the first attempts have shown whether somebody is there."""
        self._resolvers = [asyncio.create_task(self._resolve(target)) for target in self._targets]

    async def close(self) -> None:
        """Close all connections at once; calls under way fail with UNAVAILABLE."""
        self._end()
        for connection in tuple(self._opened):
            connection.abort()
        await self._gone()

    async def drain(self) -> None:
        """Begin no more calls, and return when those under way have ended.

        Calls that still wait for a connection fail with UNAVAILABLE, so that they can go elsewhere.
        Cancelled, it leaves those under way alone: they go on, and their connections close after them.
        """
        self._end()
        await self._gone()

    def _end(self) -> None:
        self._ended = True
        for resolver in self._resolvers:
            resolver.cancel()
        for line in self._lines.values():
            line.end()
        self._wake()

    async def _gone(self) -> None:
        tasks = [*self._resolvers, *(line.task for line in self._lines.values())]
        await asyncio.gather(*tasks, return_exceptions=True)
        closed = [connection.closed for connection in self._opened]
        if closed:
            await asyncio.wait(closed)

    async def unary(
        self, method: str, message: bytes, timeout_s: float, metadata: Sequence[tuple[str, str]] = ()
    ) -> bytes:
        """Call ``method`` (``/package.Service/Method``) with one message; return the one that comes back.

        Args:
            method: the path.
            message: the serialised request.
            timeout_s: seconds for everything, connecting included.
            metadata: headers of this call alone.

        What one server cannot take goes to the next, once to each: nothing that is asked here changes
        anything, so asking twice does no harm.

        Raises:
            CallFailed: with the status; UNAVAILABLE while nobody is there, and when the connection was lost
                or the server refused the call. Whoever calls again then gets another connection.
        """
        if len(message) > self._max_message_bytes:
            raise CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED)
        head = self._heads.get(method)
        if head is None:
            head = self._heads[method] = self._head(method)
        if metadata:
            head += header_block(_encoded(metadata))
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout_s
        tried: list[Connection] = []
        connection = self._pick() or await self._wait(ends)
        while True:
            try:
                return await connection.call(head, message, ends - loop.time())
            except CallFailed as failure:
                if failure.code not in _ELSEWHERE:
                    raise
                tried.append(connection)
                # The same server again only where it was the connection that failed, and only once.
                again = len(tried) == 1 and not connection.usable
                another = self._pick(tried) or (await self._wait(ends) if again else None)
                if another is None:
                    raise
                connection = another
            finally:
                if self._waiters:
                    self._wake()  # there may be room again

    def _head(self, method: str) -> bytes:
        return header_block(
            [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", method.encode()),
                (b":authority", authority(self._targets[0]).encode()),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
                (b"user-agent", b"tritonflare"),
                *self._metadata,
            ]
        )

    def _pick(self, tried: Sequence[Connection] = ()) -> Connection | None:
        """Of the connections that have room, the one with the fewest calls; the next of those that are alike.

        So a server that is silent keeps its share of the calls, and not all of them.
        """
        lines = tuple(self._lines.values())
        best: Connection | None = None
        turn = self._turn
        for offset in range(len(lines)):
            connection = lines[(turn + offset) % len(lines)].connection
            if connection is None or not connection.has_room or connection in tried:
                continue
            if best is None or connection.calls < best.calls:
                best, self._turn = connection, turn + offset + 1
        return best

    async def _wait(self, ends: float) -> Connection:
        loop = asyncio.get_running_loop()
        while True:
            connection = self._pick()
            if connection is not None:
                return connection
            nobody = not self._unseen and all(line.failed for line in self._lines.values())
            if self._ended or nobody:
                raise CallFailed(grpc.StatusCode.UNAVAILABLE, "nobody is there")
            if loop.time() >= ends:
                raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED)
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters[waiter] = None
            timer = loop.call_at(ends, _wake, (waiter,))
            try:
                await waiter
            finally:
                timer.cancel()
                del self._waiters[waiter]

    def _wake(self) -> None:
        """Have the calls that wait for a connection look again, in their order."""
        _wake(self._waiters)

    async def _resolve(self, target: Address) -> None:
        """Keep one line for each address behind the target; while it cannot be resolved, the old ones."""
        loop = asyncio.get_running_loop()
        host, port = target
        while True:
            try:
                infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                self._found[target] = [(str(info[4][0]), port) for info in infos]
            except (OSError, UnicodeError):
                pass  # what was found before stays
            self._unseen.discard(target)
            self._connect_to({address: None for found in self._found.values() for address in found})
            self._wake()
            looked = loop.time()
            await asyncio.sleep(LONGEST_PAUSE_S)
            while loop.time() < looked + RESOLVE_S and not all(line.failed for line in self._lines.values()):
                await asyncio.sleep(LONGEST_PAUSE_S)

    def _connect_to(self, addresses: dict[Address, None]) -> None:
        for address in self._lines.keys() - addresses.keys():
            self._lines.pop(address).end()
        for address in addresses:
            if address not in self._lines:
                self._lines[address] = _Line(address, self._max_message_bytes, self._opened, self._wake)


def _wake(waiters: Iterable[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
