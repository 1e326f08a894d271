"""A channel whose name leads to other addresses from one look to the next, as with compose and Kubernetes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.triton import failover_channel as channel_module
from gateway.triton.connection import LONGEST_PAUSE_S
from gateway.triton.failover_channel import FailoverChannel
from tests.gateway.triton.test_failover_channel import (
    UNAVAILABLE,
    Server,
    ask,
    ask_until_served,
    code_of,
    free_port,
    links,
    opened,
    started,
    until,
)

NAME = "triton.test"
RESOLVE_S = 1.0
"""Instead of five seconds."""
WITHIN_S = RESOLVE_S + 2 * LONGEST_PAUSE_S
"""A look, which is due at a multiple of the pause, and a connection."""


class Names:
    """What the resolver says of NAME."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        """None at all is a look-up that fails."""
        self.looks = 0

    def leads_to(self, servers: Iterable[Server]) -> None:
        self.hosts = [server.host for server in servers]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    found, real = Names(), socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != NAME:
            return real(host, port, *args, **kwargs)
        found.looks += 1
        if not found.hosts:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found.hosts]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(channel_module, "RESOLVE_S", RESOLVE_S)
    return found


@asynccontextmanager
async def at_one_port(count: int) -> AsyncIterator[list[Server]]:
    """Servers at addresses of their own and the same port, like containers."""
    port = free_port()
    async with started(
        [Server(host=f"127.0.0.{number + 1}", port=port) for number in range(count)]
    ) as servers:
        yield servers


def to(servers: list[Server]) -> str:
    return f"dns:///{NAME}:{servers[0].port}"


async def asked_meanwhile(channel: FailoverChannel, seconds: float) -> None:
    """Ask all the time; every call has to be answered."""
    ends = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < ends:
        assert await ask(channel) == b"x"
        await asyncio.sleep(0.01)


async def test_an_address_that_joins_gets_its_share_after_the_next_look(names: Names) -> None:
    async with at_one_port(2) as servers:
        old, new = servers
        names.leads_to([old])
        async with opened(to(servers)) as channel:
            await asked_meanwhile(channel, 0.2)
            names.leads_to([old, new])
            await asked_meanwhile(channel, WITHIN_S)
            before = old.calls, new.calls
            for _ in range(10):
                await ask(channel)
            assert (old.calls - before[0], new.calls - before[1]) == (5, 5)


async def test_an_address_that_leaves_gets_no_new_calls_and_ends_those_it_has(names: Names) -> None:
    async with at_one_port(2) as servers:
        stays, leaves = servers
        names.leads_to(servers)
        async with opened(to(servers)) as channel:
            await until(lambda: len(channel._opened) == 2)
            held = [asyncio.create_task(ask(channel, "Hold")) for _ in range(4)]
            await until(lambda: (stays.running, leaves.running) == (2, 2))
            names.leads_to([stays])
            await asked_meanwhile(channel, WITHIN_S)
            before = leaves.calls
            await asked_meanwhile(channel, 0.2)
            assert leaves.calls == before
            assert leaves.running == 2
            for server in servers:
                server.release.set()
            assert await asyncio.gather(*held) == [b"x"] * 4
            assert leaves.cancelled == 0
            # Nothing keeps the connection then: its server may end.
            await until(lambda: len(channel._opened) == 1)


async def test_a_look_up_that_fails_changes_nothing(names: Names) -> None:
    async with at_one_port(2) as servers:
        names.leads_to(servers)
        async with opened(to(servers)) as channel:
            await asked_meanwhile(channel, 0.2)
            connections = links(channel)
            names.hosts = []
            looks = names.looks
            await asked_meanwhile(channel, 2 * WITHIN_S)
            assert names.looks >= looks + 2
            assert links(channel) == connections
            assert min(server.calls for server in servers) > 0


async def test_a_server_that_comes_back_at_another_address_is_found_without_waiting_for_the_look(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    # While no address can be connected to, the name is looked up at every pause: a container may have moved.
    monkeypatch.setattr(channel_module, "RESOLVE_S", 60.0)
    async with at_one_port(2) as servers:
        old, new = servers
        names.leads_to([old])
        async with opened(to(servers)) as channel:
            await ask(channel)
            await old.stop()
            names.leads_to([new])
            await asyncio.wait_for(ask_until_served(channel), 4 * LONGEST_PAUSE_S)
            assert new.calls == 1


async def test_a_name_that_does_not_exist_yet_is_looked_up_until_it_does(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "RESOLVE_S", 60.0)
    async with at_one_port(1) as servers, opened(to(servers)) as channel:
        assert await code_of(ask(channel)) is UNAVAILABLE
        names.leads_to(servers)
        await asyncio.wait_for(ask_until_served(channel), 3 * LONGEST_PAUSE_S)
