"""Two Tritons and two gateways on one host, wired as compose and Kubernetes do; each dies and comes back.

A request is accepted when a gateway has it. What a gateway has when it is killed dies with it, as with any
server; the client sees its connection break and asks the next, as the official SDKs do.
"""

from __future__ import annotations

import asyncio
import re
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest

from tests.support.deploy.compose import SECRET
from tests.support.deploy.compose_triton import ServingImage, free_port
from tests.support.fleet import fleet_load
from tests.support.load import Book, Outcome, Target, reference
from tests.support.servers import ACCOUNT, TOKEN, Program, running, wait_until

pytestmark = pytest.mark.needs_triton

PER_S = 40.0
MODEL = "@cf/huggingface/distilbert-sst-2-int8"
TEXTS = [
    f"This film is {word} and the ending is {other}."
    for word in ("good", "bad")
    for other in ("fine", "dull")
]
WITHIN_S = 10.0
"""Load has to return to what has come back within this time."""
_COUNT = re.compile(r'^nv_inference_request_success\{model="cf-[^"]*int8",.*\} (\d+)$', re.MULTILINE)


@dataclass
class Fleet:
    """Two of each."""

    tritons: list[ServingImage]
    gateways: list[Program]
    targets: list[Target]
    start_gateway: Callable[[int], Program]


@contextmanager
def gateway(port: int, tritons: list[ServingImage]) -> Iterator[Program]:
    addresses = ",".join(f"127.0.0.1:{triton.grpc}" for triton in tritons)
    with running(
        "gateway",
        GATEWAY_PORT=str(port),
        GATEWAY_TRITON_URL=f"ipv4:{addresses}",
        GATEWAY_TRITON_METADATA_KEY=f"tritonflare={SECRET}",
        GATEWAY_API_TOKENS=f"{ACCOUNT}:{TOKEN}",
    ) as program:
        yield program


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with ExitStack() as stack:
        tritons = [stack.enter_context(ServingImage()) for _ in range(2)]
        ports = [free_port() for _ in range(2)]

        def start(number: int) -> Program:
            return stack.enter_context(gateway(ports[number], tritons))

        gateways = [start(number) for number in range(2)]
        path = f"/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}"
        targets = [Target(program.url, TOKEN, path) for program in gateways]
        yield Fleet(tritons, gateways, targets, start)


def served(triton: ServingImage) -> int:
    """Calls that this Triton has answered since it started; its metrics come a little after its gRPC."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{triton.metrics}/metrics", timeout=5) as metrics:
            found = _COUNT.search(metrics.read().decode())
    except urllib.error.URLError:
        return 0
    return int(found[1]) if found else 0


@asynccontextmanager
async def under_load(fleet: Fleet) -> AsyncIterator[Book]:
    answers = await reference(fleet.targets[0], TEXTS)
    async with fleet_load(fleet.targets, answers, PER_S) as book:
        await asyncio.sleep(1)
        yield book


async def seconds_until(condition: Callable[[], bool]) -> float:
    """How long it takes until the condition holds; at most WITHIN_S and a half."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.to_thread(wait_until, condition, 1.5 * WITHIN_S)
    return loop.time() - began


async def both_share(tritons: list[ServingImage]) -> None:
    """Of what is asked from now on, each answers its part."""
    before = [served(triton) for triton in tritons]
    await asyncio.sleep(2)
    shares = [served(triton) - count for triton, count in zip(tritons, before, strict=True)]
    assert min(shares) > 0.3 * sum(shares), shares


async def test_a_killed_triton_loses_no_request_and_is_asked_again_when_it_is_back(fleet: Fleet) -> None:
    first = fleet.tritons[0]
    async with under_load(fleet) as book:
        await both_share(fleet.tritons)
        await asyncio.to_thread(first.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(first.start)
        returned_s = await seconds_until(lambda: served(first) >= 10)
        await both_share(fleet.tritons)
    print(f"{len(book.outcomes)} requests, load back after {returned_s:.1f} s")
    assert book.lost() == []
    assert book.resent() == []
    assert returned_s < WITHIN_S


async def test_a_triton_that_stops_in_order_loses_no_request(fleet: Fleet) -> None:
    async with under_load(fleet) as book:
        status = await asyncio.to_thread(fleet.tritons[0].stop)
        await asyncio.sleep(1)
    print(f"{len(book.outcomes)} requests")
    assert status == 0
    assert book.lost() == []
    assert book.resent() == []


async def test_a_killed_gateway_costs_a_repetition_and_is_asked_again_when_it_is_back(fleet: Fleet) -> None:
    async with under_load(fleet) as book:
        fleet.gateways[0].process.send_signal(signal.SIGKILL)
        died = book.now_s()
        await asyncio.to_thread(fleet.gateways[0].process.wait, 10)
        await asyncio.sleep(2)
        await asyncio.to_thread(fleet.start_gateway, 0)
        back = book.now_s()
        await asyncio.sleep(3)
    print(f"{len(book.outcomes)} requests, {len(book.resent())} sent again")
    assert book.lost() == []
    assert book.resent()
    assert all(sent.gateways[0] == 0 and sent.answered_at_s >= died for sent in book.resent())
    assert min(_by(book, 0, back)) - back < WITHIN_S
    later = [sent for sent in book.outcomes if sent.at_s > back + 1]
    assert 0.4 * len(later) < len([sent for sent in later if sent.gateways == (0,)])


def _by(book: Book, number: int, after_s: float) -> list[float]:
    """When this gateway answered what had left after ``after_s``."""

    def answered(sent: Outcome) -> bool:
        return sent.gateways == (number,) and sent.at_s > after_s

    return [sent.answered_at_s for sent in book.outcomes if answered(sent)]
