"""Parts of a running Triton are killed or stopped under half of the load that it can carry."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator

import pytest

from embedded.watchdog import FAULTS
from gateway.telemetry.shared_metrics import RESTART_REASONS
from loadtest.checks import Scores
from tests.faults.conftest import DEADLINE_S, MODEL, Served, serving
from tests.support.bundled import bundled_repository
from tests.support.layouts import publish_joined
from tests.support.load import Book, load

pytestmark = pytest.mark.needs_triton

BACK_S = 5.0
"""For a restart after the longest pause between restarts that the tests below get to."""
NOTICED_WITHIN_S = 12.0
"""Eight looks at a Triton that is stuck, one second apart, and room for a busy machine."""


def back_within_s(served: Served) -> float:
    """A restart takes as long as the machine lets it: no longer than the first start took twice."""
    return max(BACK_S, 2 * served.start_s)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(bundled_repository()) as served:
        yield served


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same model with tokenizer and encoder in one process."""
    repository = tmp_path_factory.mktemp("joined") / "models"
    publish_joined(bundled_repository(), MODEL, repository)
    with serving(repository) as served:
        assert len(served.stubs()) == 1
        yield served


async def under_load(
    served: Served, answers: dict[str, Scores], per_s: float, fault: Callable[[], None], pause_s: float = 0.1
) -> tuple[Book, float]:
    """Let ``fault`` happen, and go on until requests that left ``pause_s`` later are answered.

    Returns:
        All requests, and the seconds from the fault to the first right answer to such a request.
    """
    async with load(served.target, answers, per_s) as book:
        await asyncio.sleep(0.5)
        at_s = book.now_s()
        fault()
        while book.good_again_s(at_s + pause_s) > book.now_s() and book.now_s() < at_s + 30:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
    back_s = book.good_again_s(at_s + pause_s) - at_s
    print(f"back after {back_s:.2f} s", dict(book.statuses()))
    return book, back_s


def assert_refused_at_worst(book: Book) -> None:
    """No request hung or was answered wrongly, and the refusals are those that say: try again."""
    assert book.wrong() == []
    assert set(book.statuses()) <= {200, 408, 429, 503}
    assert max(outcome.latency_s for outcome in book.outcomes) < DEADLINE_S + 1


def more(served: Served, reason: str) -> dict[str, int]:
    """The restarts so far and one more."""
    before = served.restarts()
    return {**before, reason: before.get(reason, 0) + 1}


@pytest.mark.parametrize("part", ["tritonserver", "tokenizer", "encoder"])
def test_a_killed_process_of_triton_costs_seconds_and_no_wrong_answer(
    served: Served, answers: dict[str, Scores], half: float, part: str
) -> None:
    check_killed(served, answers, half, part)


def test_a_killed_process_of_a_joined_model_costs_seconds_and_no_wrong_answer(
    joined: Served, answers: dict[str, Scores], half: float
) -> None:
    check_killed(joined, answers, half, "joined")


def check_killed(served: Served, answers: dict[str, Scores], half: float, part: str) -> None:
    victim = served.triton() if part == "tritonserver" else served.stub(part)
    expected = more(served, "ended" if part == "tritonserver" else "stub")
    book, back_s = asyncio.run(under_load(served, answers, half, victim.kill))
    assert_refused_at_worst(book)
    assert back_s < back_within_s(served)
    assert served.restarts() == expected
    # The log shows that it is over.
    lines = served.program.lines
    last = max(
        number for number, line in enumerate(lines) if "restarting it" in line or "UNAVAILABLE" in line
    )
    assert any("again" in line for line in lines[last + 1 :])


def test_a_triton_that_stands_still_for_five_seconds_goes_on_by_itself(
    served: Served, answers: dict[str, Scores], half: float
) -> None:
    before = served.restarts()
    triton = served.triton()

    async def run() -> tuple[Book, float]:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            triton.suspend()
            loop.call_later(5, triton.resume)

        return await under_load(served, answers, half, stop, 5)

    book, back_s = asyncio.run(run())
    assert_refused_at_worst(book)
    assert back_s < 5 + back_within_s(served)
    assert served.restarts() == before


def test_a_stub_that_is_stuck_is_noticed_and_replaced(
    served: Served, answers: dict[str, Scores], half: float
) -> None:
    check_stuck(served, answers, half, "encoder")


def test_a_joined_model_that_is_stuck_is_noticed_and_replaced(
    joined: Served, answers: dict[str, Scores], half: float
) -> None:
    check_stuck(joined, answers, half, "joined")


def check_stuck(served: Served, answers: dict[str, Scores], half: float, part: str) -> None:
    # The python backend says that the stub is not healthy, or says nothing.
    expected = more(served, "wedged"), more(served, "failing")
    book, back_s = asyncio.run(under_load(served, answers, half, served.stub(part).suspend, 1))
    assert_refused_at_worst(book)
    assert back_s < NOTICED_WITHIN_S + back_within_s(served)
    assert served.restarts() in expected


def test_a_stop_in_the_middle_of_a_restart_leaves_nothing(answers: dict[str, Scores], half: float) -> None:
    with serving(bundled_repository(), "--workers", "2") as served:
        expected = more(served, "ended")
        book, back_s = asyncio.run(under_load(served, answers, half, served.triton().kill))
        assert_refused_at_worst(book)
        assert back_s < back_within_s(served)
        assert served.restarts() == expected
        children = served.program.children()
        served.triton().send_signal(signal.SIGKILL)
        assert served.program.stop() == 0
        assert not any(child.is_running() for child in children)


def test_the_counter_knows_every_reason() -> None:
    assert RESTART_REASONS == FAULTS
