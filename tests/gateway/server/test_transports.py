"""What needs the kernel and real event loops: the transports of asyncio and uvloop."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Sequence

import pytest
import uvloop

from gateway.server.connection.http_connection import HttpConnection
from gateway.server.connection.timeouts import Timeouts
from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.errors import RequestError
from gateway.server.message import Address, Header, HttpRequest, Response

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
LARGE = 400_000


class Fixed:
    """An application with one response."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self, request: HttpRequest) -> tuple[Response, Sequence[Header]]:
        return Response(200, self._body), []

    def refuse(self, error: RequestError, peer: Address | None) -> tuple[Response, Sequence[Header]]:
        return Response(400, b"{}"), []


class Notifying(HttpConnection):
    """A connection that reports its end."""

    def __init__(self, body: bytes, limiter: ConnectionLimiter, transfer_s: float) -> None:
        super().__init__(Fixed(body), limiter, Timeouts(5, transfer_s))
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


async def closed(count: int) -> list[weakref.ref[HttpConnection]]:
    """Serve ``count`` clients, each of which closes after its response."""
    made: list[weakref.ref[HttpConnection]] = []
    ends: list[asyncio.Event] = []

    def make() -> HttpConnection:
        connection = Notifying(b"{}", limiter, 5)
        made.append(weakref.ref(connection))
        ends.append(connection.lost)
        return connection

    limiter = ConnectionLimiter(count)
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            assert (await reader.read(12)).startswith(b"HTTP/1.1 ")
            writer.close()
            await writer.wait_closed()
        for end in ends:
            await end.wait()
    await asyncio.sleep(0)  # the transport drops the connection after it has called connection_lost
    return made


def test_a_closed_connection_leaves_no_work_to_the_garbage_collector() -> None:
    gc.disable()
    try:
        made = uvloop.run(closed(5))
        assert [connection() for connection in made] == [None] * 5
    finally:
        gc.enable()


async def read_slowly(pause_s: float, stop_after: int) -> int:
    """Request a large last response, and read it in small pieces; return how much of it was received.

    Args:
        pause_s: after each piece.
        stop_after: bytes, after which the client stops reading and waits for the server to close.
    """
    loop = asyncio.get_running_loop()
    with socket.socket() as listener, socket.socket() as client:
        # Small buffers, or the kernel would take the whole response at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        connections: list[Notifying] = []

        def make() -> HttpConnection:
            connections.append(Notifying(bytes(LARGE), ConnectionLimiter(1), 0.3))
            return connections[0]

        server = await loop.create_server(make, sock=listener)
        async with server:
            client.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
            await loop.sock_sendall(client, REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            received = 0
            while piece := await loop.sock_recv(client, 65536):
                received += len(piece)
                await asyncio.sleep(pause_s)
                if received > stop_after:
                    await connections[0].lost.wait()
                    break
            return received


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_client_that_reads_slowly_receives_its_whole_last_response(run: object) -> None:
    assert run(read_slowly(0.005, stop_after=2 * LARGE)) > LARGE  # type: ignore[operator]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_client_that_stops_reading_its_last_response_is_disconnected(run: object) -> None:
    async def bounded() -> int:
        return await asyncio.wait_for(read_slowly(0, stop_after=LARGE // 4), 10)

    assert run(bounded()) < LARGE  # type: ignore[operator]
