"""What becomes of calls when a caller gives up, an answer never comes, or a connection breaks."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from gateway.triton import connection as connection_module
from gateway.triton import failover_channel as channel_module
from gateway.triton.failover_channel import FailoverChannel
from gateway.triton.status import StubSilent, failure_of
from tests.gateway.triton.test_failover_channel import (
    UNAVAILABLE,
    Server,
    ask,
    code_of,
    connected,
    links,
    opened,
    running,
    until,
)


class Relay:
    """Passes bytes on to a server, until the connections are cut."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._writers: list[asyncio.StreamWriter] = []
        self.address = ""
        self.silent = False
        """Everything gets lost, without a word."""

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._server.host, self._server.port)
        self._writers += [writer, back]
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                if not self.silent:
                    writer.write(piece)
        except ConnectionError:
            pass
        writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@asynccontextmanager
async def relayed(server: Server) -> AsyncIterator[Relay]:
    relay = Relay(server)
    listening = await asyncio.start_server(relay.pass_on, "127.0.0.1", 0)
    relay.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        listening.close()
        relay.cut()
        await asyncio.sleep(0.01)


async def test_a_call_whose_connection_breaks_is_sent_again_to_the_same_server_once() -> None:
    async with running() as (server,), relayed(server) as relay, opened(relay.address) as channel:
        await ask(channel)
        for _ in range(5):
            held = [asyncio.create_task(ask(channel, "Hold")) for _ in range(3)]
            await until(lambda: server.running == 3)
            relay.cut()
            await until(lambda: server.running == 0)
            await until(lambda: server.running == 3)
            server.release.set()
            assert await asyncio.gather(*held) == [b"x"] * 3
            server.release.clear()
        held = [asyncio.create_task(ask(channel, "Hold"))]
        for _ in range(2):
            await until(lambda: server.running == 1)
            relay.cut()
            await until(lambda: server.running == 0)
        assert await code_of(held[0]) is UNAVAILABLE


async def test_what_the_only_server_refuses_is_not_sent_again() -> None:
    async with running() as (server,), opened(server.address) as channel:
        server.refusal = grpc.StatusCode.UNAVAILABLE, "loading"
        assert await code_of(ask(channel)) is UNAVAILABLE
        assert (server.calls, connected(channel)) == (1, 1)


@pytest.mark.parametrize("turns", [*range(8), 200])
async def test_a_caller_that_is_cancelled_at_any_moment_cancels_nothing_at_the_server(turns: int) -> None:
    async with running() as (server,), opened(server.address) as channel:
        await ask(channel)
        task = asyncio.create_task(ask(channel, "Hold"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task
        gc.collect()
        sent = turns > 0  # a task that is cancelled before its first step sends nothing
        await until(lambda: server.running == sent)
        await asyncio.sleep(0.05)
        gc.collect()
        assert (server.running, server.cancelled) == (sent, 0)
        server.release.set()
        await until(lambda: sum(each.calls for each in channel._opened) == 0)
        assert server.cancelled == 0


async def test_a_connection_full_of_lost_answers_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MOST_ABANDONED", 3)
    monkeypatch.setattr(connection_module, "CLOSE_GRACE_S", 0.2)
    monkeypatch.setattr(channel_module, "RESOLVE_S", 0.1)
    async with running() as (server,), opened(server.address) as channel:
        await ask(channel)
        before = links(channel)
        for _ in range(2):
            assert await code_of(ask(channel, "Hold", timeout_s=0.02)) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert links(channel) == before
        assert await code_of(ask(channel, "Hold", timeout_s=0.02)) is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: connected(channel) == 1 and links(channel) != before)
        assert await ask(channel) == b"x"
        # The old one holds the calls for a while, then nothing keeps it.
        await until(lambda: len(channel._opened) == 1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(connection_module._OPTIONS)
    for name in ("keepalive_time_ms", "keepalive_timeout_ms", "http2.ping_timeout_ms"):
        options[f"grpc.{name}"] = 100
    monkeypatch.setattr(connection_module, "_OPTIONS", tuple(options.items()))


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_vanished_is_noticed_even_when_every_caller_has_gone() -> None:
    async with running() as (server,), relayed(server) as relay, opened(relay.address) as channel:
        await ask(channel)
        before = links(channel)
        relay.silent = True
        assert await code_of(ask(channel, timeout_s=0.05)) is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: links(channel) == set())
        relay.silent = False
        await until(lambda: connected(channel) == 1)
        assert links(channel) != before
        assert await ask(channel) == b"x"


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_takes_long_is_kept() -> None:
    async with running() as (server,), opened(server.address) as channel:
        await ask(channel)
        before = links(channel)
        task = asyncio.create_task(ask(channel, "Hold"))
        await asyncio.sleep(1)
        server.release.set()
        assert await task == b"x"
        assert links(channel) == before


async def test_drain_waits_for_calls_whose_callers_have_gone() -> None:
    async with running() as (server,), opened(server.address) as channel:
        assert await code_of(ask(channel, "Hold", timeout_s=0.05)) is grpc.StatusCode.DEADLINE_EXCEEDED
        draining = asyncio.create_task(channel.drain())
        await asyncio.sleep(0.05)
        assert (draining.done(), server.running, server.cancelled) == (False, 1, 0)
        server.release.set()
        await asyncio.wait_for(draining, 2)
        assert server.cancelled == 0


async def test_a_long_error_message_keeps_its_status() -> None:
    async with running() as (server,), opened(server.address) as channel:
        server.refusal = grpc.StatusCode.INTERNAL, "Traceback " * 3000
        assert await code_of(ask(channel)) is grpc.StatusCode.INTERNAL


def test_a_silent_process_of_a_model_is_known_by_what_triton_says() -> None:
    details = "Stub process 'encoder_0_0' is not healthy."
    error = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    assert isinstance(failure_of(error), StubSilent)


async def test_a_channel_that_was_never_opened_can_be_closed() -> None:
    channel = FailoverChannel("127.0.0.1:1", 1000)
    await channel.close()


_STOPPED_SERVER = """
import asyncio, gateway.main, grpc
from gateway.triton.failover_channel import FailoverChannel
from gateway.triton.status import CallFailed

async def hold(request, context):
    await asyncio.Event().wait()

async def main():
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(hold)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"m": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = FailoverChannel(f"127.0.0.1:{port}", 1000)
    await channel.open()
    call = asyncio.create_task(channel.unary("/s/m", b"", 5))
    await asyncio.sleep(0.5)
    await server.stop(0)
    try:
        await call
    except CallFailed:
        pass
    await channel.close()

asyncio.run(main())
"""


def test_grpc_writes_no_lines_of_its_own_when_a_server_goes() -> None:
    ended: Any = subprocess.run(
        [sys.executable, "-c", _STOPPED_SERVER], capture_output=True, text=True, timeout=30, check=True
    )
    assert "goaway" not in ended.stderr
