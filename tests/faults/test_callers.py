"""Slow callers, callers that hang up and ten thousand idle ones: the others are served as before."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from embedded.server import TritonServer
from loadtest.bench.figures import percentile
from loadtest.checks import Scores
from tests.faults.conftest import PATH
from tests.support.gateway_process import gateway_before_real
from tests.support.harness import TOKEN, Client
from tests.support.hostile_callers import GONE, IDLE, SLOW, unwanted
from tests.support.load import Target, load, reference
from tests.support.servers import wait_until
from tests.support.texts import sentences

pytestmark = pytest.mark.needs_triton

PER_S = 60.0
MEASURED_S = 4.0
IDLE_CONNECTIONS = 10_000
ROUNDS = 3
"""A machine that has no time for us spoils one; callers who disturb the others spoil all."""
LEAST_P99_S = 0.02
"""Below this, what else this machine does decides."""
BYTES_A_CONNECTION = 16 * 1024


@contextmanager
def gateway(tmp_path: Path, triton: TritonServer) -> Iterator[tuple[Target, psutil.Process]]:
    with gateway_before_real(tmp_path / "log", triton, GATEWAY_ACCESS_LOG_SHARE="0") as port:
        owner = next(
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        )
        yield Target(f"http://127.0.0.1:{port}", TOKEN, PATH), psutil.Process(owner)


async def p99_s(target: Target, answers: dict[str, Scores]) -> float:
    """Of the good requests; each of them must be answered, rightly."""
    async with load(target, answers, PER_S) as book:
        await asyncio.sleep(MEASURED_S)
    assert set(book.statuses()) == {200}, book.statuses()
    assert book.wrong() == []
    return percentile(sorted(outcome.latency_s for outcome in book.outcomes), 0.99)


@pytest.mark.parametrize(("kind", "count"), [(SLOW, 500), (GONE, 200), (IDLE, IDLE_CONNECTIONS)])
def test_unwanted_callers_do_not_block_others(
    tmp_path: Path, real_triton: TritonServer, kind: str, count: int
) -> None:
    if kind == IDLE and resource.getrlimit(resource.RLIMIT_NOFILE)[1] < count + 500:
        pytest.skip(f"needs a limit of open files above {count + 500}")
    with gateway(tmp_path, real_triton) as (target, process):
        answers = asyncio.run(reference(target, sentences()[:40]))
        before = process.memory_info().rss
        port = int(target.url.rpartition(":")[2])
        for _ in range(ROUNDS):
            alone = asyncio.run(p99_s(target, answers))
            with unwanted(kind, port, count, TOKEN):
                beside = asyncio.run(p99_s(target, answers))
                connections = asyncio.run(Client(port).metric("tritonflare_connections"))
                grown = process.memory_info().rss - before
            if beside <= 3 * max(alone, LEAST_P99_S):
                break
        # A client that has gone is told from one that half-closed after 0.3 s at most.
        ended = wait_until(lambda: asyncio.run(Client(port).metric("tritonflare_requests_in_flight")) == 0, 2)
    told = (
        f"{kind}: p99 alone {1000 * alone:.1f} ms, beside them {1000 * beside:.1f} ms, {connections:.0f} "
        f"connections, {grown / 1e6:.1f} MB more"
    )
    print(told)
    if kind != GONE:
        assert connections >= 0.98 * count, told
    assert grown < 8e6 + count * BYTES_A_CONNECTION, told
    assert beside <= 3 * max(alone, LEAST_P99_S), told
    assert ended, told
