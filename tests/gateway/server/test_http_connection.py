from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Sequence
from typing import cast

import pytest
import uvloop

from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.errors import RequestError
from gateway.server.http_connection import HttpConnection
from gateway.server.message import Header, HttpRequest, Response
from gateway.server.timeouts import Timeouts
from tests.support.wires import Recorder, Wire, answers

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class Fine:
    """An application to which everything is fine."""

    async def __call__(self, request: HttpRequest) -> tuple[Response, Sequence[Header]]:
        return Response(200, b"{}"), []

    def refuse(self, error: RequestError) -> tuple[Response, Sequence[Header]]:
        return Response(400, b"{}"), []


async def closed(data: bytes, count: int) -> list[weakref.ref[HttpConnection]]:
    """Serve so many callers, each of which sends ``data`` and leaves after the answer."""
    made: list[weakref.ref[HttpConnection]] = []

    def make() -> HttpConnection:
        connection = HttpConnection(Fine(), limiter, Timeouts(5, 5))
        made.append(weakref.ref(connection))
        return connection

    limiter = ConnectionLimiter(count)
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            assert (await reader.read(12)).startswith(b"HTTP/1.1 ")
            writer.close()
            await writer.wait_closed()
        while len(limiter):
            await asyncio.sleep(0.01)
    return made


def test_a_closed_connection_leaves_no_work_to_the_garbage_collector() -> None:
    gc.disable()
    try:
        made = uvloop.run(closed(REQUEST, 5))
        assert [connection() for connection in made] == [None] * 5
    finally:
        gc.enable()


LARGE = 400_000


class Large(Fine):
    async def __call__(self, request: HttpRequest) -> tuple[Response, Sequence[Header]]:
        return Response(200, bytes(LARGE)), []


async def read_slowly(pause_s: float, *, then: str) -> int:
    """Ask for a large answer and the end, read it in small pieces; return how much of it came."""
    loop = asyncio.get_running_loop()
    with socket.socket() as listener, socket.socket() as caller:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # or the kernel takes all of it
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        limiter = ConnectionLimiter(1)
        server = await loop.create_server(
            lambda: HttpConnection(Large(), limiter, Timeouts(5, 0.3)), sock=listener
        )
        async with server:
            caller.setblocking(False)
            await loop.sock_connect(caller, listener.getsockname())
            await loop.sock_sendall(caller, REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            came = 0
            while piece := await loop.sock_recv(caller, 65536):
                came += len(piece)
                await asyncio.sleep(pause_s)
                if then == "stop" and came > LARGE / 4:
                    while len(limiter):
                        await asyncio.sleep(0.01)
                    break
            return came


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_slow_reader_who_asked_for_the_end_gets_his_whole_answer(run: object) -> None:
    assert run(read_slowly(0.005, then="go on")) > LARGE  # type: ignore[operator]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_who_stops_reading_the_last_answer_is_cut_off(run: object) -> None:
    async def bounded() -> int:
        return await asyncio.wait_for(read_slowly(0, then="stop"), 10)

    assert run(bounded()) < LARGE  # type: ignore[operator]


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 50_000
BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"b" * 60_000


def opened(limiter: ConnectionLimiter) -> tuple[HttpConnection, Wire]:
    wire = Wire()
    connection = HttpConnection(Recorder(), limiter, Timeouts(75, 10))
    connection.connection_made(cast(asyncio.Transport, wire))
    return connection, wire


async def test_above_the_memory_of_all_connections_the_oldest_unfinished_heads_make_room() -> None:
    limiter = ConnectionLimiter(100, limit_bytes=210_000)
    there = [opened(limiter) for _ in range(6)]
    for connection, _ in there:
        connection.data_received(HEAD)
        assert limiter.buffered_bytes <= 210_000
    assert [wire.closed for _, wire in there] == [True, True, False, False, False, False]
    small, wire = opened(limiter)
    small.data_received(REQUEST)
    await asyncio.sleep(0.01)
    assert answers(wire.written) == [b"200 0"]
    for connection, _ in [*there, (small, wire)]:
        connection.connection_lost(None)
    assert limiter.buffered_bytes == 0


async def test_where_bodies_take_all_memory_the_newest_is_refused_and_small_requests_are_not() -> None:
    limiter = ConnectionLimiter(100, limit_bytes=210_000)
    there = [opened(limiter) for _ in range(5)]
    for connection, _ in there:
        connection.data_received(BODY)
        await asyncio.sleep(0)
        assert limiter.buffered_bytes <= 210_000
    small, wire = opened(limiter)
    small.data_received(REQUEST)
    await asyncio.sleep(0.01)
    assert answers(wire.written) == [b"200 0"]
    assert [answers(wire.written) for _, wire in there] == [[], [], [], [b"429 broken"], [b"429 broken"]]
    for connection, _ in there[:3]:
        connection.data_received(b"b" * 4_000)
        connection.data_received(b"b" * 36_000)
    await asyncio.sleep(0.01)
    statuses = [answers(wire.written)[0] for _, wire in there[:3]]
    assert statuses == [b"429 broken", b"200 100000", b"200 100000"]  # whose bytes were too many
    for connection, _ in [*there, (small, wire)]:
        connection.connection_lost(None)
    assert limiter.buffered_bytes == 0


async def test_pipelined_bytes_are_kept_as_they_came_and_count() -> None:
    limiter = ConnectionLimiter(100)
    connection, wire = opened(limiter)
    connection.data_received(REQUEST * 5000)
    assert limiter.buffered_bytes <= len(REQUEST) * 5000
    assert limiter.buffered_bytes >= len(REQUEST) * 4999
    assert wire.paused
    while len(answers(wire.written)) < 5000:
        await asyncio.sleep(0.01)
    assert limiter.buffered_bytes == 0
    assert answers(wire.written) == [b"200 0"] * 5000
    connection.connection_lost(None)
