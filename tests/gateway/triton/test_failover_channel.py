"""The channel against real gRPC servers, and against peers that are none."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from gateway.triton import connection as connection_module
from gateway.triton.failover_channel import FailoverChannel
from gateway.triton.status import CallFailed

LIMIT = 8 * 2**20
METHOD = "/test.Service/"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
GIVEN_UP = {UNAVAILABLE, grpc.StatusCode.CANCELLED}
"""What grpc.aio's server itself says of calls under way when it stops: now this, now that."""


class Server:
    """A grpc.aio server that echoes, and may come and go on its port."""

    def __init__(
        self, options: Iterable[tuple[str, Any]] = (), host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", LIMIT), *options]
        self._server: grpc.aio.Server | None = None
        self.host = host
        self.port = port
        self.calls = 0
        self.running = 0
        self.most = 0
        self.cancelled = 0
        self.release = asyncio.Event()
        self.metadata: dict[str, Any] = {}
        self.peers: set[str] = set()
        self.refusal: tuple[grpc.StatusCode, str] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        server = grpc.aio.server(options=self._options)
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(handle)
            for name, handle in (("Echo", self._echo), ("Hold", self._hold), ("Big", self._big))
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
        self.port = server.add_insecure_port(self.address)
        await server.start()
        self._server = server

    async def stop(self, grace_s: float | None = None) -> None:
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    async def _echo(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        self.peers.add(context.peer())
        self.metadata = dict(context.invocation_metadata())
        if self.refusal is not None:
            await context.abort(*self.refusal)
        return request

    async def _big(self, request: bytes, context: Any) -> bytes:
        return bytes(int(request))

    async def _hold(self, request: bytes, context: Any) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return request


@asynccontextmanager
async def running(count: int = 1, *options: tuple[str, Any]) -> AsyncIterator[list[Server]]:
    async with started([Server(options) for _ in range(count)]) as servers:
        yield servers


@asynccontextmanager
async def started(servers: list[Server]) -> AsyncIterator[list[Server]]:
    for server in servers:
        await server.start()
    try:
        yield servers
    finally:
        for server in servers:
            await server.stop()


@asynccontextmanager
async def opened(url: str, limit: int = LIMIT, **more: Any) -> AsyncIterator[FailoverChannel]:
    channel = FailoverChannel(url, limit, **more)
    await channel.open()
    try:
        yield channel
    finally:
        await asyncio.wait_for(channel.close(), 5)
        assert (channel._opened, channel._changed) == (set(), None)


async def ask(
    channel: FailoverChannel, name: str = "Echo", request: bytes = b"x", timeout_s: float = 10
) -> bytes:
    return await channel.unary(METHOD + name, request, timeout_s)


async def code_of(call: Awaitable[bytes]) -> grpc.StatusCode:
    with pytest.raises(CallFailed) as caught:
        await call
    return caught.value.code


def links(channel: FailoverChannel) -> set[object]:
    """The connections that are there; one that is made anew is another."""
    return {each.link for each in channel._connections.values() if each.link is not None}


def connected(channel: FailoverChannel) -> int:
    return len(links(channel))


async def until(met: Callable[[], bool]) -> None:
    for _ in range(1000):
        if met():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")


async def ask_until_served(channel: FailoverChannel, name: str = "Echo", request: bytes = b"x") -> bytes:
    while True:
        try:
            return await ask(channel, name, request)
        except CallFailed as failed:
            if failed.code is not UNAVAILABLE:
                raise
            await asyncio.sleep(0.01)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("scheme", ["", "ipv4:"])
async def test_calls_take_turns_on_all_addresses(scheme: str) -> None:
    async with running(3) as servers, opened(scheme + ",".join(s.address for s in servers)) as channel:
        await ask(channel)
        await until(lambda: connected(channel) == 3)
        before = [server.calls for server in servers]
        for _ in range(9):
            assert await ask(channel, request=b"text") == b"text"
        assert [server.calls - old for server, old in zip(servers, before, strict=True)] == [3, 3, 3]


async def test_a_name_is_looked_up_and_one_that_does_not_exist_does_not_block_others() -> None:
    async with running() as (server,):
        async with opened(f"dns:///localhost:{server.port}") as channel:
            await ask(channel)
        async with opened(f"nowhere.invalid:1,{server.address}") as channel:
            await ask(channel, timeout_s=5)


async def test_a_name_that_does_not_exist_is_unavailable() -> None:
    async with opened("nowhere.invalid:8001") as channel:
        assert await code_of(ask(channel)) is UNAVAILABLE


async def test_headers_and_statuses_travel() -> None:
    async with running() as (server,), opened(server.address, metadata=[("Key", "v")]) as channel:
        await channel.unary(METHOD + "Echo", b"", 1.0, [("traceparent", "00-1")])
        assert server.metadata.pop("user-agent").startswith("tritonflare ")
        assert server.metadata == {"key": "v", "traceparent": "00-1"}
        assert await code_of(ask(channel, "None")) is grpc.StatusCode.UNIMPLEMENTED


async def test_with_one_of_two_gone_one_retry_is_enough_and_its_return_shows_within_a_second() -> None:
    async with running(2) as servers, opened(",".join(s.address for s in servers)) as channel:
        outcomes: Counter[str] = Counter()
        stop = False

        async def caller() -> None:
            while not stop:
                try:
                    await ask(channel)
                except CallFailed as failed:
                    outcomes[failed.code.name] += 1
                    await ask(channel)
                outcomes["ok"] += 1
                await asyncio.sleep(0.002)

        callers = [asyncio.create_task(caller()) for _ in range(4)]
        await until(lambda: all(server.calls for server in servers))
        await servers[1].stop()
        await asyncio.sleep(0.5)
        old = servers[1].calls
        await servers[1].start()
        returned = asyncio.get_running_loop().time()
        await until(lambda: servers[1].calls > old)
        assert asyncio.get_running_loop().time() - returned < 1
        stop = True
        await asyncio.gather(*callers)
        assert outcomes["ok"] > 50
        assert outcomes.keys() <= {"ok", *(code.name for code in GIVEN_UP)}
        assert sum(outcomes.values()) - outcomes["ok"] <= 8


async def test_without_a_server_calls_fail_at_once_and_are_served_within_a_second_after() -> None:
    async with running() as (server,), opened(server.address) as channel:
        loop = asyncio.get_running_loop()
        await ask(channel)
        await server.stop()
        await asyncio.sleep(0.7)
        began = loop.time()
        for _ in range(20):
            assert await code_of(ask(channel)) is UNAVAILABLE
        assert loop.time() - began < 0.5
        await server.start()
        began = loop.time()
        await ask_until_served(channel)
        assert loop.time() - began < 1


@pytest.mark.parametrize("grace_s", [None, 0.1])
async def test_a_server_that_stops_within_a_call_is_unavailable(grace_s: float | None) -> None:
    async with running() as (server,), opened(server.address) as channel:
        tasks = [asyncio.create_task(ask(channel, "Hold")) for _ in range(3)]
        await until(lambda: server.running == 3)
        await server.stop(grace_s)
        assert {await code_of(task) for task in tasks} <= GIVEN_UP


async def test_neither_deadline_nor_cancellation_reach_the_server() -> None:
    async with running() as (server,), opened(server.address) as channel:
        assert await code_of(ask(channel, "Hold", timeout_s=0.1)) is grpc.StatusCode.DEADLINE_EXCEEDED
        task = asyncio.create_task(ask(channel, "Hold"))
        await until(lambda: server.running == 2)
        task.cancel()
        assert await ask(channel) == b"x"
        assert (task.cancelled(), server.running, server.cancelled) == (True, 2, 0)
        server.release.set()
        await until(lambda: server.running == 0)
        assert server.cancelled == 0


async def test_a_server_that_is_silent_keeps_only_its_share_of_the_calls() -> None:
    async with running(2) as (silent, server), opened(f"{silent.address},{server.address}") as channel:
        await until(lambda: connected(channel) == 2)
        server.release.set()
        held = [asyncio.create_task(ask(channel, "Hold")) for _ in range(2)]
        await until(lambda: silent.running == 1)
        for _ in range(20):
            await ask(channel)
        assert (silent.calls, server.calls) == (0, 20)
        silent.release.set()
        await asyncio.gather(*held)


async def test_big_messages_go_both_ways_and_too_big_ones_do_not() -> None:
    async with running() as (server,), opened(server.address) as channel:
        request = bytes(range(256)) * 4096 * 3
        assert await ask(channel, request=request) == request
        assert len(await ask(channel, "Big", b"%d" % LIMIT)) == LIMIT
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await code_of(ask(channel, "Big", b"%d" % (LIMIT + 1))) is exhausted
        assert await code_of(ask(channel, request=bytes(LIMIT + 1))) is exhausted
        assert await ask(channel) == b"x"


async def test_many_calls_at_once_keep_their_answers_apart() -> None:
    async with running(2) as servers, opened(",".join(s.address for s in servers)) as channel:
        requests = [b"%d" % place * (place % 500) for place in range(1000)]
        assert await asyncio.gather(*(ask(channel, request=request) for request in requests)) == requests


async def test_calls_above_the_servers_limit_wait_for_room() -> None:
    async with running(1, ("grpc.max_concurrent_streams", 2)) as (server,), opened(server.address) as channel:
        # grpc's server counts an answered call for a moment longer, and may refuse the next: UNAVAILABLE.
        calls = [ask_until_served(channel, "Hold", b"%d" % place) for place in range(9)]
        tasks = [asyncio.create_task(call) for call in calls]
        await until(lambda: server.running == 2)
        assert await code_of(ask(channel, timeout_s=0.05)) is grpc.StatusCode.DEADLINE_EXCEEDED
        server.release.set()
        assert await asyncio.gather(*tasks) == [b"%d" % place for place in range(9)]
        assert server.most == 2


async def test_a_server_that_limits_the_age_of_connections_loses_no_call() -> None:
    age = (("grpc.max_connection_age_ms", 200), ("grpc.max_connection_age_grace_ms", 2000))
    async with running(1, *age) as (server,), opened(server.address) as channel:
        ends = asyncio.get_running_loop().time() + 1
        while asyncio.get_running_loop().time() < ends:
            await asyncio.gather(*(ask(channel) for _ in range(5)))
            await asyncio.sleep(0.005)
        assert server.calls > 50
        assert len(server.peers) > 1


async def test_draining_ends_calls_under_way_and_refuses_others() -> None:
    async with running() as (server,), opened(server.address) as channel:
        task = asyncio.create_task(ask(channel, "Hold"))
        await until(lambda: server.running == 1)
        draining = asyncio.create_task(channel.drain())
        assert await code_of(asyncio.create_task(ask(channel))) is UNAVAILABLE
        assert not draining.done()
        server.release.set()
        assert await task == b"x"
        await asyncio.wait_for(draining, 2)


async def test_a_drain_that_is_cancelled_leaves_calls_alone_and_close_ends_them() -> None:
    async with running() as (server,), opened(server.address) as channel:
        task = asyncio.create_task(ask(channel, "Hold"))
        await until(lambda: server.running == 1)
        draining = asyncio.create_task(channel.drain())
        await asyncio.sleep(0.01)
        draining.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        await asyncio.wait_for(channel.close(), 2)
        assert await code_of(task) is UNAVAILABLE


async def test_when_addresses_change_calls_under_way_go_on() -> None:
    async with running(2) as (old, new), opened(old.address) as channel:
        task = asyncio.create_task(ask(channel, "Hold"))
        await until(lambda: old.running == 1)
        channel._connect_to({("127.0.0.1", new.port): None})
        for _ in range(5):
            await ask(channel)
        assert (old.calls, new.calls) == (0, 5)
        old.release.set()
        assert await task == b"x"
        await until(lambda: len(channel._opened) == 1)


@asynccontextmanager
async def peer(greeting: bytes, stay: bool) -> AsyncIterator[tuple[int, list[int]]]:
    """Accepts connections, says ``greeting`` and then nothing."""
    accepted: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(1)
        try:
            writer.write(greeting)
            while stay and await reader.read(1000):
                pass
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], accepted
    finally:
        server.close()
        await asyncio.sleep(0.01)


async def test_a_peer_that_never_greets_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "CONNECT_TIMEOUT_S", 0.1)
    async with peer(b"", stay=True) as (port, accepted), opened(f"127.0.0.1:{port}") as channel:
        assert await code_of(ask(channel)) is UNAVAILABLE
        await until(lambda: len(accepted) == 2)
        assert await code_of(ask(channel)) is UNAVAILABLE


async def test_a_peer_that_greets_and_leaves_does_not_keep_the_channel_busy() -> None:
    async with peer(bytes.fromhex("000000040000000000"), stay=False) as (port, accepted):
        channel = FailoverChannel(f"127.0.0.1:{port}", LIMIT)
        await channel.open()
        await asyncio.sleep(0.5)
        assert len(accepted) <= 6
        await until(lambda: len(accepted) >= 2)
        await channel.close()


@pytest.mark.parametrize("steps", range(12))
async def test_closing_at_any_moment_of_connecting_ends_everything(steps: int) -> None:
    async with running() as (server,), opened(server.address) as channel:
        task = asyncio.create_task(ask(channel, "Hold"))
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.wait_for(channel.close(), 2)
        assert await code_of(task) is UNAVAILABLE
        assert await code_of(ask(channel)) is UNAVAILABLE


async def test_a_call_cancelled_while_it_waits_for_a_connection_leaves_nothing() -> None:
    async with peer(b"", stay=True) as (port, _), opened(f"127.0.0.1:{port}") as channel:
        task = asyncio.create_task(ask(channel))
        await until(lambda: channel._changed is not None)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert channel._changed is not None
        assert not channel._changed._callbacks
        assert await code_of(ask(channel, timeout_s=0.05)) is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_port_without_a_listener_is_unavailable_at_once() -> None:
    async with opened(f"127.0.0.1:{free_port()}") as channel:
        assert await asyncio.wait_for(code_of(ask(channel)), 2) is UNAVAILABLE
