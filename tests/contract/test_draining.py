"""A gateway that stops loses no request, whoever is about to send one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.server.connection.timeouts import Timeouts
from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.errors import RequestError
from gateway.server.listener import HttpServer
from gateway.server.message import Address, Header, HttpRequest, Response
from tests.support.fake_triton import FakeTriton, hold
from tests.support.harness import TOKEN, running_gateway, settings_for, until

GET = b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n"
LAST = b"\r\nconnection: close\r\n"


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes = GET) -> bytes:
    """Send a request on a connection that lives on; return the head of the answer."""
    writer.write(request)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
    await reader.readexactly(int(length.partition(b": ")[2]))
    return head


async def test_from_the_first_moment_every_answer_closes_its_connection(triton: FakeTriton) -> None:
    body = b'{"text": "a"}'
    path = (
        b"/client/v4/accounts/0123456789abcdef0123456789abcdef/ai/run/@cf/huggingface/distilbert-sst-2-int8"
    )
    post = b"POST %b HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
    release = asyncio.Event()
    async with running_gateway(settings_for(triton, shutdown_delay_s=1)) as running:
        idle, busy = [await asyncio.open_connection("127.0.0.1", running.client.port) for _ in range(2)]
        assert LAST not in await ask(*idle)
        triton.infer_fault = hold(release)
        waiting = asyncio.create_task(ask(*busy, post % (path, TOKEN.encode(), len(body), body)))

        async def inferring() -> bool:
            return triton.running == 1

        await until(inferring)
        running.stop.set()
        await asyncio.sleep(0)
        new = await asyncio.open_connection("127.0.0.1", running.client.port)  # it still listens
        assert LAST in await ask(*new)
        assert LAST in await ask(*idle)
        release.set()
        assert LAST in await waiting
        for _, writer in (idle, busy, new):
            writer.close()


async def test_an_idle_connection_is_answered_once_more_before_it_is_closed(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, drain_keep_alive_s=1)) as running:
        used, unused = [await asyncio.open_connection("127.0.0.1", running.client.port) for _ in range(2)]
        for connection in (used, unused):
            await ask(*connection)
        running.stop.set()
        await asyncio.sleep(0.3)
        assert LAST in await ask(*used)
        assert not running.task.done()
        assert await asyncio.wait_for(unused[0].read(), 5) == b""  # closed, not reset
        await asyncio.wait_for(running.task, 5)
        used[1].close()
        unused[1].close()


async def test_without_idle_connections_nothing_waits(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, drain_keep_alive_s=30)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
        await ask(reader, writer)
        writer.close()
        running.stop.set()
        await asyncio.wait_for(running.task, 5)


class Echo:
    """An app that answers everything with 200."""

    async def __call__(self, request: HttpRequest) -> tuple[Response, list[Header]]:
        return Response(200, b"ok"), [(b"content-length", b"2")]

    def refuse(self, error: RequestError, peer: Address | None) -> tuple[Response, list[Header]]:
        return Response(429, b"busy"), []


@pytest.fixture
async def served() -> AsyncIterator[tuple[HttpServer, ConnectionLimiter, int]]:
    limiter, listening = ConnectionLimiter(1000), socket.create_server(("127.0.0.1", 0))
    server = HttpServer(Echo(), limiter, Timeouts(30, 30))
    await server.start([listening])
    yield server, limiter, listening.getsockname()[1]
    await server.stop(0, asyncio.Event())
    listening.close()


async def test_what_came_while_the_gateway_was_about_to_close_is_answered(
    served: tuple[HttpServer, ConnectionLimiter, int],
) -> None:
    _, limiter, port = served
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await ask(reader, writer)
    (member,) = limiter
    # No await in between: the bytes are in the kernel, and the event loop has not seen them.
    writer.write(GET)
    member.finish()  # type: ignore[attr-defined]
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert LAST in head
    writer.close()


async def test_connections_that_the_kernel_accepted_before_the_port_closed_are_answered(
    served: tuple[HttpServer, ConnectionLimiter, int],
) -> None:
    """One opens in each turn of the event loop, so one opens in the turn in which the port closes."""
    server, _, port = served
    loop = asyncio.get_running_loop()
    opened: list[socket.socket] = []

    def open_one() -> None:
        sock = socket.socket()
        if sock.connect_ex(("127.0.0.1", port)):
            sock.close()
            return
        sock.sendall(GET)
        sock.setblocking(False)
        opened.append(sock)
        loop.call_soon(open_one)

    open_one()
    await asyncio.sleep(0.01)
    await server.stop(5, asyncio.Event())
    answers = [await asyncio.wait_for(loop.sock_recv(sock, 1000), 5) for sock in opened]
    for sock in opened:
        sock.close()
    assert len(answers) > 1
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * len(answers)
