"""Parts of a running Triton are killed or stopped under half of the load that it can carry."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.conftest import DEADLINE_S, Served, serving
from tests.faults.load import Answer, Book, load
from tritonflare.paths import REPOSITORY

BACK_WITHIN_S = 5.0


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(REPOSITORY, "--workers", request.param) as served:
        yield served


def assert_refused_at_worst(book: Book) -> None:
    """No request hung or was answered wrongly, and the refusals are those that say: try again."""
    assert book.wrong() == []
    assert set(book.statuses()) <= {200, 408, 429, 503}
    assert max(outcome.latency_s for outcome in book.outcomes) < DEADLINE_S + 1


@pytest.mark.parametrize("part", ["tritonserver", "tokenizer", "encoder"])
def test_a_killed_process_of_triton_costs_seconds_and_no_wrong_answer(
    served: Served, answers: dict[str, Answer], half: float, part: str
) -> None:
    before = served.restarts()
    victim = served.triton() if part == "tritonserver" else served.stub(part)

    async def run() -> tuple[Book, float]:
        async with load(served.target, answers, half) as book:
            await asyncio.sleep(0.5)
            at_s = book.now_s()
            victim.kill()
            await asyncio.sleep(0.05)
            while book.good_again_s(at_s + 0.05) > book.now_s() and book.now_s() < at_s + 15:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
        return book, at_s

    book, at_s = asyncio.run(run())
    print(
        part,
        dict(book.statuses()),
        book.good_again_s(at_s + 0.05) - at_s,
        max(o.latency_s for o in book.outcomes),
    )
    assert_refused_at_worst(book)
    assert book.good_again_s(at_s + 0.05) - at_s < BACK_WITHIN_S
    reason = "ended" if part == "tritonserver" else "stub"
    assert served.restarts() == {**before, reason: before.get(reason, 0) + 1}
