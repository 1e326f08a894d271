from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence

import uvloop

from gateway.domain.errors import TritonflareError
from gateway.http.connection import Connection, Patience
from gateway.http.crowd import Crowd
from gateway.http.message import Header, Request, Response

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class Fine:
    """An application to which everything is fine."""

    async def __call__(self, request: Request) -> tuple[Response, Sequence[Header]]:
        return Response(200, b"{}"), []

    def refuse(self, error: TritonflareError) -> tuple[Response, Sequence[Header]]:
        return Response(400, b"{}"), []


async def closed(data: bytes, count: int) -> list[weakref.ref[Connection]]:
    """Serve so many callers, each of which sends ``data`` and leaves after the answer."""
    made: list[weakref.ref[Connection]] = []

    def make() -> Connection:
        connection = Connection(Fine(), crowd, Patience(5, 5))
        made.append(weakref.ref(connection))
        return connection

    crowd = Crowd(count)
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            assert (await reader.read(12)).startswith(b"HTTP/1.1 ")
            writer.close()
            await writer.wait_closed()
        while len(crowd):
            await asyncio.sleep(0.01)
    return made


def test_a_closed_connection_leaves_no_work_to_the_garbage_collector() -> None:
    gc.disable()
    try:
        made = uvloop.run(closed(REQUEST, 5))
        assert [connection() for connection in made] == [None] * 5
    finally:
        gc.enable()
