"""Connections to all addresses of a target, and calls that take turns on them.

What gRPC calls a channel with the policy ``round_robin``: a connection to each address, made anew with a
short back-off when it is lost; a call goes to the next one that is there.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence

import grpc

from gateway.triton.frames import Header, header_block
from gateway.triton.http2 import CallFailed, Connection

Address = tuple[str, int]

CONNECT_TIMEOUT_S = 1.0
"""Time for a connection to come about and for the server to greet."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 0.5
"""Triton is near: its return must show at once, so pauses between attempts stay well below a second."""
RESOLVE_S = 5.0
"""Pause between two looks at the addresses behind a name: new ones get calls after that time."""
_PREFIX = re.compile(r"(?:dns:(?://[^/]*)?/*|ipv4:|ipv6:)")


def targets(url: str) -> list[Address]:
    """Split a gRPC target into hosts and ports.

    Args:
        url: ``host:port``, ``dns:///host:port``, or several of them behind each other with commas
            between (``ipv4:10.0.0.1:8001,10.0.0.2:8001``).

    Raises:
        ValueError: it is none of these.
    """
    found = []
    for part in _PREFIX.sub("", url, count=1).split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError("not of the form host:port")
        found.append((host.removeprefix("[").removesuffix("]"), int(port)))
    return found


def _encoded(metadata: Sequence[tuple[str, str]]) -> list[Header]:
    return [(name.lower().encode(), value.encode()) for name, value in metadata]


class _Line:
    """One address: its connection, made again and again until `end`."""

    def __init__(self, address: Address, max_message_bytes: int, changed: asyncio.Event) -> None:
        self._address = address
        self._max_message_bytes = max_message_bytes
        self._changed = changed
        self.connection: Connection | None = None
        self.failed = False
        """The last attempt to connect did not succeed."""
        self.task = asyncio.create_task(self._keep())

    def end(self) -> None:
        """Give the address up; calls under way go on."""
        self.task.cancel()
        if self.connection is not None:
            self.connection.leave()

    async def _keep(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            if await self._connect():
                pause_s = FIRST_PAUSE_S
            else:
                self.failed = True
                self._changed.set()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _connect(self) -> bool:
        """Be connected until the server leaves; tell whether it greeted at all."""
        loop = asyncio.get_running_loop()
        turn = asyncio.Event()

        def changed() -> None:
            turn.set()
            self._changed.set()

        connection = Connection(self._max_message_bytes, changed)
        try:
            await asyncio.wait_for(self._greet(loop, connection, turn), CONNECT_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError):
            return False
        finally:
            if not connection.usable:
                connection.abort()
        self.connection, self.failed = connection, False
        self._changed.set()
        while connection.usable:
            turn.clear()
            await turn.wait()
        return True

    async def _greet(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, turn: asyncio.Event
    ) -> None:
        await loop.create_connection(lambda: connection, *self._address)
        while not connection.usable:
            if connection.closed.done():
                raise ConnectionError("closed before it greeted")
            turn.clear()
            await turn.wait()


class Channel:
    """Unary gRPC calls to a target; for the event loop in which it is opened.

    Args:
        url: see `targets`.
        max_message_bytes: largest message to take.
        metadata: headers that every call carries.
    """

    def __init__(self, url: str, max_message_bytes: int, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self._url = url
        self._targets = targets(url)
        self._max_message_bytes = max_message_bytes
        self._metadata = _encoded(metadata)
        self._heads: dict[str, bytes] = {}
        self._lines: dict[Address, _Line] = {}
        self._turn = 0
        self._changed = asyncio.Event()
        self._resolver: asyncio.Task[None] | None = None
        self._unresolved = False
        """The last look found no address at all."""

    async def open(self) -> None:
        """Begin to connect; calls wait until the first attempts have shown whether somebody is there."""
        self._resolver = asyncio.create_task(self._resolve())

    async def close(self) -> None:
        """Close all connections at once; calls under way fail."""
        await self._end()
        for line in self._lines.values():
            if line.connection is not None:
                line.connection.abort()
        self._lines = {}

    async def drain(self) -> None:
        """Begin no more calls, and close when those under way have ended."""
        await self._end()
        for line in self._lines.values():
            if line.connection is not None:
                await line.connection.closed
        self._lines = {}

    async def _end(self) -> None:
        tasks = [line.task for line in self._lines.values()]
        if self._resolver is not None:
            self._resolver.cancel()
            tasks.append(self._resolver)
        for line in self._lines.values():
            line.end()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def unary(
        self, method: str, message: bytes, timeout_s: float, metadata: Sequence[tuple[str, str]] = ()
    ) -> bytes:
        """Call ``method`` (``/package.Service/Method``) with one message; return the one that comes back.

        Args:
            method: the path.
            message: the serialised request.
            timeout_s: seconds for everything, connecting included.
            metadata: headers of this call alone.

        Raises:
            CallFailed: with the status; UNAVAILABLE while nobody is there.
        """
        connection = self._pick()
        if connection is None:
            loop = asyncio.get_running_loop()
            ends = loop.time() + timeout_s
            connection = await self._wait(ends)
            timeout_s = ends - loop.time()
        head = self._heads.get(method)
        if head is None:
            head = self._heads[method] = self._head(method)
        if metadata:
            head += header_block(_encoded(metadata))
        return await connection.call(head, message, timeout_s)

    def _head(self, method: str) -> bytes:
        host, port = self._targets[0]
        return header_block(
            [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", method.encode()),
                (b":authority", f"{host}:{port}".encode()),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
                (b"user-agent", b"tritonflare"),
                *self._metadata,
            ]
        )

    def _pick(self) -> Connection | None:
        """The next connection that has room."""
        lines = tuple(self._lines.values())
        for offset in range(len(lines)):
            connection = lines[(self._turn + offset) % len(lines)].connection
            if connection is not None and connection.has_room:
                self._turn += offset + 1
                return connection
        return None

    async def _wait(self, ends: float) -> Connection:
        loop = asyncio.get_running_loop()
        while True:
            connection = self._pick()
            if connection is not None:
                return connection
            lines = self._lines.values()
            if all(line.failed for line in lines) and (lines or self._unresolved):
                raise CallFailed(grpc.StatusCode.UNAVAILABLE)
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), ends - loop.time())
            except asyncio.TimeoutError:
                raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED) from None

    async def _resolve(self) -> None:
        """Keep one line for each address behind the target; while names cannot be resolved, the old ones."""
        loop = asyncio.get_running_loop()
        while True:
            found: dict[Address, None] = {}
            known = True
            for host, port in self._targets:
                try:
                    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                except OSError:
                    known = False
                    continue
                found.update({(str(info[4][0]), port): None for info in infos})
            self._unresolved = not found
            if known:
                self._connect_to(found)
            self._changed.set()
            await asyncio.sleep(RESOLVE_S if found else FIRST_PAUSE_S)

    def _connect_to(self, addresses: dict[Address, None]) -> None:
        for address in self._lines.keys() - addresses.keys():
            self._lines.pop(address).end()
        for address in addresses:
            if address not in self._lines:
                self._lines[address] = _Line(address, self._max_message_bytes, self._changed)
