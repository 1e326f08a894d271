"""Gateways behind a proxy, then Tritons, restart one after the other under load; callers do not retry.

The proxy retries: at a published port the engine accepts connections as long as the container exists, and
closes them while no gateway listens in it, so a proxy sees no refused connection, and does not send a POST
again of its own accord.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.containers.test_kills import PER_S, TEXTS
from tests.support.containers.deployment import PATH, Deployment
from tests.support.load import Book, Target, load, reference
from tests.support.proxies import running_proxy
from tests.support.servers import wait_until


def restart(fleet: Deployment, service: str) -> None:
    """`docker restart` each container when the one before it is healthy again."""
    for container in fleet.containers(service):
        fleet.engine.docker("restart", container)
        assert wait_until(lambda name=container: fleet.health(name) == "healthy", 60)  # type: ignore[misc]


def report(name: str, book: Book) -> None:
    print(f"{name}: {len(book.outcomes)} requests in {book.now_s():.0f} s, {dict(book.statuses())}")


@pytest.mark.parametrize("proxy", ["nginx", pytest.param("haproxy", marks=pytest.mark.long)])
async def test_a_rolling_restart_of_gateways_fails_no_request(
    fleet: Deployment, tmp_path: Path, proxy: str
) -> None:
    ports = [int(target.url.rpartition(":")[2]) for target in fleet.targets()]
    with running_proxy(proxy, ports, tmp_path, resend=True) as port:
        target = Target(f"http://127.0.0.1:{port}", fleet.token, PATH)
        async with load(target, await reference(target, TEXTS), PER_S) as book:
            await asyncio.to_thread(restart, fleet, "gateway")
    report(proxy, book)
    assert book.lost() == []
    assert sorted(int(target.url.rpartition(":")[2]) for target in fleet.targets()) == sorted(ports)


@pytest.mark.long
async def test_a_rolling_restart_of_tritons_fails_no_request(fleet: Deployment) -> None:
    target = fleet.targets()[0]
    async with load(target, await reference(target, TEXTS), PER_S) as book:
        await asyncio.to_thread(restart, fleet, "triton")
    report("tritons", book)
    assert book.lost() == []
