"""Processes of two gateways and two Tritons are killed under load, and the engine restarts them.

Callers send again what breaks, as the official SDKs do. No request may be lost, and no answer may be wrong.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.support.containers.deployment import Deployment
from tests.support.containers.processes import find_process, kill, main_process
from tests.support.fleet import fleet_load
from tests.support.load import Book, reference
from tests.support.servers import wait_until

PER_S = 40.0
TEXTS = [
    f"This film is {word} and the ending is {other}."
    for word in ("good", "bad")
    for other in ("fine", "dull")
]
RESTARTED_WITHIN_S = 60.0
"""Of a container; seconds where the machine is not shared."""
_COUNT = r"""
import re, urllib.request
text = urllib.request.urlopen("http://127.0.0.1:8002/metrics", timeout=5).read().decode()
success = r'^nv_inference_request_success\{model="cf-[^"]*int8",.*\} (\d+)$'
print(sum(map(int, re.findall(success, text, re.M))))
"""
Table = list[tuple[str, int, int, int, float]]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """What was killed, requests, lost, sent again, seconds until it answered again; printed at the end."""
    rows: Table = []
    yield rows
    print("\n| killed | requests | lost | sent again | answers again after |\n|---|---|---|---|---|")
    for name, requests, lost, resent, seconds in rows:
        print(f"| {name} | {requests} | {lost} | {resent} | {seconds:.1f} s |")


@asynccontextmanager
async def under_load(fleet: Deployment) -> AsyncIterator[Book]:
    targets = await asyncio.to_thread(fleet.targets)
    answers = await reference(targets[0], TEXTS)
    async with fleet_load(targets, answers, PER_S) as book:
        await asyncio.sleep(1)
        yield book


def answered_calls(fleet: Deployment, triton: str) -> int:
    """Calls that a Triton has answered since it started; 0 while its container starts."""
    done = fleet.engine.run("exec", triton, "python", "-I", "-c", _COUNT)
    return int(done.stdout) if done.returncode == 0 else 0


async def seconds_until(condition: Callable[[], bool], within_s: float) -> float:
    """How long it takes until the condition holds; infinity after ``within_s``."""
    began = time.monotonic()
    held = await asyncio.to_thread(wait_until, condition, within_s)
    return time.monotonic() - began if held else math.inf


def add_row(table: Table, name: str, book: Book, seconds: float) -> None:
    table.append((name, len(book.outcomes), len(book.lost()), len(book.resent()), seconds))


def restarts(fleet: Deployment, container: str) -> int:
    return int(fleet.inspect(container)["RestartCount"])


async def test_a_killed_gateway_comes_back_on_its_port(fleet: Deployment, table: Table) -> None:
    container = fleet.containers("gateway")[0]
    port, before = fleet.gateway_url(), restarts(fleet, container)
    async with under_load(fleet) as book:
        kill(main_process(fleet.engine, container))
        died = book.now_s()
        recovered_s = await seconds_until(lambda: _answers(book, 0, died) < math.inf, RESTARTED_WITHIN_S)
        await asyncio.sleep(1)
    add_row(table, "gateway", book, recovered_s)
    assert book.lost() == []
    assert book.resent()
    assert recovered_s < RESTARTED_WITHIN_S
    assert restarts(fleet, container) == before + 1
    # Each of the two has one of the two ports, so it finds its own free.
    assert fleet.gateway_url() == port


def _answers(book: Book, gateway: int, after_s: float) -> float:
    """When this gateway first answered what had left after ``after_s``; else infinity."""
    return min(
        (sent.answered_at_s for sent in book.good() if sent.gateways == (gateway,) and sent.at_s > after_s),
        default=math.inf,
    )


@pytest.mark.parametrize("process", ["tritonserver", pytest.param("init", marks=pytest.mark.long)])
async def test_a_killed_triton_loses_no_request_and_is_called_again(
    fleet: Deployment, table: Table, process: str
) -> None:
    container = fleet.containers("triton")[0]
    before = restarts(fleet, container)
    async with under_load(fleet) as book:
        main = main_process(fleet.engine, container)
        kill(main if process == "init" else find_process(fleet.engine, container, "bin/tritonserver"))
        recovered_s = await seconds_until(
            lambda: restarts(fleet, container) > before and answered_calls(fleet, container) > 10,
            RESTARTED_WITHIN_S,
        )
    add_row(table, f"{process} of a Triton", book, recovered_s)
    assert book.lost() == []
    assert book.resent() == []
    assert recovered_s < RESTARTED_WITHIN_S


@pytest.mark.long
async def test_a_triton_whose_encoder_was_killed_is_replaced(fleet: Deployment, table: Table) -> None:
    container = fleet.containers("triton")[0]
    before = restarts(fleet, container)
    async with under_load(fleet) as book:
        kill(find_process(fleet.engine, container, "python_backend_stub", "encoder"))
        recovered_s = await seconds_until(
            lambda: restarts(fleet, container) > before and answered_calls(fleet, container) > 10, 180
        )
    add_row(table, "encoder of a Triton", book, recovered_s)
    assert [sent for sent in book.outcomes if sent.status == 200 and not sent.right] == []
    assert book.lost() == []
    assert recovered_s < 180


async def test_the_engine_leaves_what_docker_kill_ended_until_it_is_started(fleet: Deployment) -> None:
    container = fleet.containers("gateway")[1]
    port = fleet.gateway_url(2)
    fleet.engine.docker("kill", container)
    await asyncio.sleep(3)
    assert fleet.inspect(container)["State"]["Status"] == "exited"
    fleet.engine.docker("start", container)
    assert await seconds_until(lambda: fleet.health(container) == "healthy", RESTARTED_WITHIN_S) < math.inf
    assert fleet.gateway_url(2) == port
