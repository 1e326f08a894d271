"""Batches get what is idle: when they wait, how much they hand over, what they try again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from gateway.access.admission import Admission
from gateway.batches import idle_source
from gateway.batches.idle_source import MOST_TRIES, IdleSource, ModelBusy, ModelNotReady
from gateway.domain.backend import Answer, RawScores
from gateway.domain.catalogue import Ensemble, Model, parse_model
from gateway.domain.errors import BackendFailed, BackendUnavailable, DeadlineExceeded, Overloaded
from gateway.domain.inputs import ModelInput
from gateway.domain.options import CallOptions
from tests.gateway.domain.test_catalogue import GOOD

MODEL = parse_model(Ensemble("e", GOOD, max_batch_size=64))
RIGHT = RawScores((0.0, 1.0), 3)


@dataclass
class Stage:
    """A source whose speed and faults a test decides, and what it was asked."""

    seconds_per_text: float = 0.0
    answer: Callable[[bytes], Answer] = lambda text: RIGHT
    is_idle: bool = True
    is_available: bool = True
    refuses: int = 0
    """Calls that raise Overloaded."""
    calls: list[list[bytes]] = field(default_factory=list)
    admission: Admission = field(default_factory=lambda: Admission(100))

    async def classify(
        self, model: Model, texts: Sequence[ModelInput], deadline_s: float, options: CallOptions
    ) -> list[Answer]:
        if self.refuses:
            self.refuses -= 1
            raise Overloaded
        self.calls.append([bytes(text) for text in texts])
        await asyncio.sleep(self.seconds_per_text * len(texts))
        return [self.answer(bytes(text)) for text in texts]

    def source(self, most_inputs: int = 64) -> IdleSource:
        return IdleSource(
            self.classify,
            is_idle=lambda model: self.is_idle,
            in_flight=lambda: self.admission.in_flight,
            is_available=lambda model: self.is_available,
            most_inputs=most_inputs,
        )


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_source, "_RETRY_S", 0.01)


def texts(count: int, size: int = 20) -> list[bytes]:
    return [f"{number:0{size}}".encode() for number in range(count)]


async def test_every_input_gets_its_answer_in_order() -> None:
    stage = Stage(answer=lambda text: RawScores((float(text), 0.0), 3))
    answers = await stage.source().classify(MODEL, texts(300), 1)
    assert [answer.logits[0] for answer in answers if isinstance(answer, RawScores)] == list(range(300))
    assert sum(map(len, stage.calls)) == 300


async def test_nothing_is_handed_over_while_live_texts_wait() -> None:
    stage = Stage(is_idle=False)
    running = asyncio.create_task(stage.source().classify(MODEL, texts(1), 1))
    await asyncio.sleep(0.1)
    assert stage.calls == []
    stage.is_idle = True
    assert await running == [RIGHT]


async def test_a_model_that_live_requests_keep_busy_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_source, "_BUSY_S", 0.1)
    stage = Stage(is_idle=False)
    with pytest.raises(ModelBusy):
        await asyncio.wait_for(stage.source().classify(MODEL, texts(1), 1), 5)
    assert stage.calls == []


async def test_what_was_answered_is_not_given_up_as_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_source, "_BUSY_S", 0.05)
    stage = Stage()
    running = asyncio.create_task(stage.source(most_inputs=1).classify(MODEL, texts(2), 1))
    while not stage.calls:
        await asyncio.sleep(0)
    stage.is_idle = False
    await asyncio.sleep(0.3)
    stage.is_idle = True
    assert await running == [RIGHT] * 2


async def test_the_answers_of_a_chunk_are_not_given_up_in_its_next_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idle_source, "_BUSY_S", 0.05)
    stage = Stage()
    source = stage.source()
    chunk = source.with_options(CallOptions())
    assert await chunk.classify(MODEL, texts(2), 1) == [RIGHT] * 2
    stage.is_idle = False
    running = asyncio.create_task(chunk.classify(MODEL, texts(1), 1))
    with pytest.raises(ModelBusy):
        await source.with_options(CallOptions()).classify(MODEL, texts(1), 1)
    await asyncio.sleep(0.2)
    stage.is_idle = True
    assert await running == [RIGHT]


async def test_a_call_of_a_batch_takes_as_long_as_it_should() -> None:
    stage = Stage(seconds_per_text=0.002)
    await stage.source().classify(MODEL, texts(200), 1)
    settled = [len(call) for call in stage.calls[4:-1]]
    assert settled
    # 50 ms are 25 texts; this machine's clock may be late.
    assert 12 <= sum(settled) / len(settled) <= 30


async def test_beside_live_requests_it_takes_a_fifth_of_that() -> None:
    stage = Stage(seconds_per_text=0.002)
    with stage.admission:
        await stage.source().classify(MODEL, texts(100), 1)
    settled = [len(call) for call in stage.calls[4:-1]]
    # 10 ms are 5 texts.
    assert 1 <= sum(settled) / len(settled) <= 6


async def test_live_requests_have_half_of_the_time_to_themselves() -> None:
    stage = Stage(seconds_per_text=0.001)
    began = time.monotonic()
    running = asyncio.create_task(stage.source().classify(MODEL, texts(60), 1))
    while not running.done():
        with stage.admission:  # a live request that comes again and again
            await asyncio.sleep(0.004)
        await asyncio.sleep(0.004)
    calls_s = sum(len(call) for call in stage.calls) * 0.001
    assert await running == [RIGHT] * 60
    assert time.monotonic() - began > 1.8 * calls_s


async def test_it_waits_for_a_moment_without_live_requests_but_not_for_ever() -> None:
    stage = Stage()
    began = time.monotonic()
    with stage.admission:
        assert await stage.source().classify(MODEL, texts(1), 1) == [RIGHT]
    assert 0.1 <= time.monotonic() - began < 0.5


async def test_a_long_text_costs_more_than_a_short_one() -> None:
    stage = Stage(seconds_per_text=0.002)
    source = stage.source()
    await source.classify(MODEL, texts(200), 1)
    stage.calls.clear()
    await source.classify(MODEL, texts(20, size=2000), 1)
    assert len(stage.calls[0]) <= 4, "as many would be 25 short ones"


async def test_a_call_has_no_more_inputs_than_it_may() -> None:
    stage = Stage()
    await stage.source(most_inputs=7).classify(MODEL, texts(100), 1)
    assert max(len(call) for call in stage.calls) == 7


async def test_a_refused_call_is_repeated() -> None:
    stage = Stage(refuses=3)
    assert await stage.source().classify(MODEL, texts(3), 1) == [RIGHT] * 3


@pytest.mark.parametrize("error", [BackendUnavailable(), DeadlineExceeded(), Overloaded()])
async def test_what_may_pass_is_tried_again_alone_and_not_for_ever(error: Answer) -> None:
    stage = Stage(answer=lambda text: error if text == b"bad" else RIGHT)
    given = [b"good", b"bad", b"fine"]
    assert await stage.source().classify(MODEL, given, 1) == [RIGHT, error, RIGHT]
    assert stage.calls == [given] + [[b"bad"]] * (MOST_TRIES - 1)


async def test_what_failed_for_good_is_not_tried_again() -> None:
    error = BackendFailed()
    stage = Stage(answer=lambda text: error if text == b"bad" else RIGHT)
    assert await stage.source().classify(MODEL, [b"good", b"bad"], 1) == [RIGHT, error]
    assert len(stage.calls) == 1


async def test_a_model_that_is_away_is_said_at_once() -> None:
    stage = Stage(is_available=False)
    with pytest.raises(ModelNotReady):
        await stage.source().classify(MODEL, texts(1), 1)
    assert stage.calls == []


async def test_a_text_that_ends_the_server_is_given_up_and_takes_no_other_with_it() -> None:
    """The server dies of one text, every time, and comes back; what runs the batch begins anew each time."""
    deaths = 0

    def die(text: bytes) -> Answer:
        nonlocal deaths
        if text == b"bad":
            deaths += 1
            stage.is_available = False
            return BackendUnavailable()
        return RIGHT

    stage = Stage(answer=die)
    source = stage.source()
    given = [b"one", b"two", b"bad", b"four"]
    for _ in range(2 * MOST_TRIES):
        stage.is_available = True
        with suppress(ModelNotReady):
            answers = await source.classify(MODEL, given, 1)
            break
    assert [isinstance(answer, RawScores) for answer in answers] == [True, True, False, True]
    assert deaths == MOST_TRIES
    together = [call for call in stage.calls if b"bad" in call and len(call) > 1]
    assert together == [given]
