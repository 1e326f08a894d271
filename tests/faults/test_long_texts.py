"""Twenty callers who send a megabyte of long text each, again and again, beside short texts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from loadtest.checks import Scores
from tests.faults.conftest import Served, serving
from tests.support.bundled import bundled_repository
from tests.support.hostile_callers import LONG, unwanted
from tests.support.load import Book, Target, load, reference
from tests.support.servers import TOKEN
from tests.support.texts import sentences

pytestmark = pytest.mark.needs_triton

CALLERS = 20
SECONDS = 4.0
SHORT_PER_S = 8.0
P99_S = 3.0
"""Within the deadline on a machine that others load as well; alone it is a tenth of it."""
MORE_BYTES = 64 << 20
"""What the tokenizer's process may grow by: one text, in several forms. It was 330 MB."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(bundled_repository()) as served:
        yield served


@pytest.fixture(scope="module")
def answers(served: Served) -> dict[str, Scores]:
    return asyncio.run(reference(served.target, sentences()[:8]))


# First: what the callers below leave behind waits until its deadline.
def test_a_long_text_is_truncated_charged_for_what_was_read_and_scored_as_its_beginning(
    served: Served,
) -> None:
    def ask(text: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx.post(
            served.target.url + served.target.path, json={"text": text}, headers=headers, timeout=30
        )

    long, beginning, whole = ask("good " * 100_000), ask("good " * 511), ask("good " * 510)
    assert long.status_code == 200
    assert long.content == beginning.content == whole.content
    assert [answer.headers["cf-ai-neurons"] for answer in (long, beginning, whole)] == ["1.23"] * 3
    assert [answer.headers.get("x-truncated") for answer in (long, beginning, whole)] == [
        "true",
        "true",
        None,
    ]


async def beside(target: Target, answers: dict[str, Scores], kind: str) -> Book:
    port = urlsplit(target.url).port
    assert port is not None
    with unwanted(kind, port, CALLERS, TOKEN):
        async with load(target, answers, SHORT_PER_S) as book:
            await asyncio.sleep(SECONDS)
    return book


@pytest.mark.parametrize("kind", LONG)
def test_short_texts_do_not_wait_for_long_ones_and_memory_stays(
    served: Served, answers: dict[str, Scores], kind: str
) -> None:
    stub = served.stub("tokenizer")
    before = stub.memory_info().rss
    book = asyncio.run(beside(served.target, answers, kind))
    grown = stub.memory_info().rss - before
    latencies = sorted(outcome.latency_s for outcome in book.outcomes)
    told = f"{dict(book.statuses())}, longest {latencies[-1]:.2f} s, {grown >> 20} MB more"
    print(told)
    assert len(book.good()) == len(book.outcomes) >= 0.8 * SECONDS * SHORT_PER_S, told
    assert latencies[int(0.99 * len(latencies))] < P99_S, told
    assert grown < MORE_BYTES, told
