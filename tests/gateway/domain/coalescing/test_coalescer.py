"""Coalescing: which texts are sent together, and that every text gets its own answer in every case."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.backend import Answer, RawScores
from gateway.domain.catalogue import Ensemble, Model, parse_model
from gateway.domain.coalescing.coalescer import Coalescer
from gateway.domain.coalescing.grouping import CALL_BYTES, LONG_BYTES_PER_TOKEN
from gateway.domain.coalescing.queue import CoalescingLimits
from gateway.domain.errors import AiError, BackendFailed, BackendUnavailable, DeadlineExceeded, Overloaded
from gateway.domain.inputs import Window
from tests.gateway.domain.test_catalogue import GOOD

MODEL = parse_model(Ensemble("e", GOOD, max_batch_size=64))
LIMITS = CoalescingLimits(call_slots=2, max_call_texts=4, call_length_ratio=4.0, max_queue_s=30.0)


def scores(text: bytes) -> RawScores:
    """The answer of the backend below; it identifies the text."""
    return RawScores((float(len(text)), float(sum(text))), len(text))


@dataclass
class Calls:
    """A backend that answers after a given time, and records its calls."""

    sent: list[list[bytes]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    deadlines: list[float] = field(default_factory=list)
    cancelled: int = 0
    wait: Callable[[], float] = lambda: 0.0
    fault: Callable[[Sequence[bytes]], AiError | None] = lambda texts: None

    async def discover(self) -> Sequence[Ensemble]:
        return []

    async def classify(self, model: Model, texts: Sequence[Any], deadline_s: float) -> Sequence[RawScores]:
        self.sent.append(list(texts))
        self.deadlines.append(deadline_s)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(self.wait())
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1
        error = self.fault(texts)
        if error is not None:
            raise error
        return [scores(bytes(text)) for text in texts]

    @property
    def texts(self) -> list[bytes]:
        return [text for call in self.sent for text in call]


async def ask(coalescer: Coalescer, *texts: bytes, deadline_s: float = 60) -> list[Answer]:
    return await coalescer.classify(MODEL, texts, deadline_s)


async def test_a_lone_text_leaves_at_once_and_alone() -> None:
    calls = Calls()
    assert await ask(Coalescer(calls, LIMITS), b"a") == [scores(b"a")]
    assert calls.sent == [[b"a"]]


async def test_what_arrives_while_all_slots_are_busy_leaves_together_oldest_first() -> None:
    calls = Calls(wait=lambda: 0.1)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    asked = []
    for text in (b"a", b"b", b"c", b"d", b"e", b"f"):
        asked.append(asyncio.create_task(ask(coalescer, text)))
        await asyncio.sleep(0.001)
    await asyncio.gather(*asked)
    assert calls.sent == [[b"a"], [b"b", b"c", b"d", b"e"], [b"f"]]


async def test_what_arrives_in_one_turn_is_spread_over_the_free_slots() -> None:
    calls = Calls(wait=lambda: 0.01)
    coalescer = Coalescer(calls, LIMITS)
    await asyncio.gather(*(ask(coalescer, text) for text in (b"a", b"b", b"c", b"d", b"e")))
    assert calls.sent[:2] == [[b"a", b"b", b"c"], [b"d", b"e"]]


async def test_while_a_call_is_under_way_a_free_slot_waits_a_moment_for_more_texts() -> None:
    waits = iter([0.2, *[0.02] * 20])
    calls = Calls(wait=lambda: next(waits))
    coalescer = Coalescer(calls, LIMITS)
    await ask(coalescer, b"teaches how long a call takes")
    long_one = asyncio.create_task(ask(coalescer, b"under way"))
    await asyncio.sleep(0.001)
    asked = []
    for text in (b"a", b"b", b"c"):
        asked.append(asyncio.create_task(ask(coalescer, text)))
        await asyncio.sleep(0)  # other turns of the loop
    await asyncio.gather(long_one, *asked)
    assert calls.sent[2] == [b"a", b"b", b"c"]


async def test_neither_the_settings_nor_the_models_batch_is_exceeded() -> None:
    model = replace(MODEL, max_batch_size=3)
    calls = Calls(wait=lambda: 0.001)
    coalescer = Coalescer(calls, LIMITS)
    await asyncio.gather(*(coalescer.classify(model, [b"%02d" % n], 60) for n in range(40)))
    assert max(map(len, calls.sent)) == 3
    assert calls.most_open == 2


async def test_a_short_text_does_not_travel_with_a_long_one_but_is_not_overtaken_for_long() -> None:
    calls = Calls(wait=lambda: 0.01)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    long, short = b"l" * 2000, b"s"
    await ask(coalescer, long, short, long, short, short)
    assert calls.sent == [[long, long], [short, short, short]]


async def test_a_call_holds_a_bounded_number_of_bytes_but_one_text_may_be_longer() -> None:
    calls = Calls()
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    half, huge = b"h" * (CALL_BYTES // 2 + 1), b"x" * (2 * CALL_BYTES)
    await ask(coalescer, huge, half, half)
    assert calls.sent == [[huge], [half], [half]]


@dataclass
class Stuck(Calls):
    """Never answers what is long."""

    async def classify(self, model: Model, texts: Sequence[Any], deadline_s: float) -> Sequence[RawScores]:
        if max(map(len, texts)) > LONG:
            await asyncio.Event().wait()
        return await super().classify(model, texts, deadline_s)


LONG = LONG_BYTES_PER_TOKEN * MODEL.max_tokens


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("length", [LONG + 1, CALL_BYTES + 1, 1_000_000])
async def test_short_texts_wait_for_no_long_ones_nor_are_refused_for_them(slots: int, length: int) -> None:
    coalescer = Coalescer(Stuck(), replace(LIMITS, call_slots=slots, max_queue_s=0.01))
    stuck = [asyncio.create_task(ask(coalescer, b"l" * length)) for _ in range(10)]
    stuck.append(asyncio.create_task(ask(coalescer, *[b"l" * length] * 20)))
    await asyncio.sleep(0.05)
    assert await ask(coalescer, b"s" * LONG, b"s") == [scores(b"s" * LONG), scores(b"s")]
    with pytest.raises(Overloaded):
        await ask(coalescer, b"s", b"l" * length)
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    await coalescer.close()


async def test_the_longer_the_texts_the_fewer_calls_of_them_are_under_way() -> None:
    coalescer = Coalescer(Calls(wait=lambda: 30), replace(LIMITS, call_slots=3, max_call_texts=1))
    asked = []
    for length, slots in ((LONG, 3), (LONG + 1, 2), (CALL_BYTES + 1, 1)):
        before = coalescer.calls
        asked += [asyncio.create_task(ask(coalescer, b"x" * length)) for _ in range(9)]
        await asyncio.sleep(0.01)
        assert coalescer.calls - before == slots
    await coalescer.close()
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_a_text_that_breaks_the_call_fails_alone() -> None:
    calls = Calls(fault=lambda texts: BackendFailed() if b"bad" in texts else None)
    good, bad, other = await ask(Coalescer(calls, replace(LIMITS, call_slots=1)), b"good", b"bad", b"oth")
    assert (good, other) == (scores(b"good"), scores(b"oth"))
    assert isinstance(bad, BackendFailed)


async def test_a_server_that_is_away_is_asked_once_for_all_texts_of_a_call() -> None:
    calls = Calls(fault=lambda texts: BackendUnavailable())
    answers = await ask(Coalescer(calls, replace(LIMITS, call_slots=1)), b"a", b"b")
    assert [type(answer) for answer in answers] == [BackendUnavailable] * 2
    assert calls.sent == [[b"a", b"b"]]


async def test_a_defect_of_the_backend_answers_all_texts_and_frees_the_slot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def defect(texts: Sequence[bytes]) -> AiError | None:
        if b"a" in texts:
            raise RuntimeError("a defect")
        return None

    calls = Calls(fault=defect)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    assert [type(answer) for answer in await ask(coalescer, b"a")] == [BackendFailed]
    assert await ask(coalescer, b"b") == [scores(b"b")]
    assert "a call for" in caplog.text


async def test_abandoned_and_expired_texts_are_never_sent() -> None:
    calls = Calls(wait=lambda: 0.05)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    first = asyncio.create_task(ask(coalescer, b"first"))
    await asyncio.sleep(0)
    abandoned = asyncio.create_task(ask(coalescer, b"abandoned", b"too"))
    expired = asyncio.create_task(ask(coalescer, b"expired", deadline_s=0.01))
    kept = asyncio.create_task(ask(coalescer, b"kept"))
    await asyncio.sleep(0.01)
    abandoned.cancel()
    await asyncio.gather(first, kept)
    assert [type(answer) for answer in await expired] == [DeadlineExceeded]
    assert calls.texts == [b"first", b"kept"]


async def test_a_call_without_waiting_requests_continues_and_keeps_its_slot() -> None:
    calls = Calls(wait=lambda: 0.1)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    gone = asyncio.create_task(ask(coalescer, b"a"))
    expired = asyncio.create_task(ask(coalescer, b"b", deadline_s=0.02))
    await asyncio.sleep(0.01)
    gone.cancel()
    next_one = asyncio.create_task(ask(coalescer, b"c"))
    assert [type(answer) for answer in await expired] == [DeadlineExceeded]
    assert (calls.sent, calls.open) == ([[b"a", b"b"]], 1)
    assert await next_one == [scores(b"c")]
    assert (calls.cancelled, calls.most_open) == (0, 1)


async def test_each_text_has_its_own_deadline_wherever_it_is() -> None:
    calls = Calls(wait=lambda: 30)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1, max_call_texts=2))
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def ended(text: bytes, deadline_s: float) -> float:
        (answer,) = await ask(coalescer, text, deadline_s=deadline_s)
        assert isinstance(answer, DeadlineExceeded)
        return loop.time() - began

    # Two are under way, two wait; the first that came is not the first whose time is over.
    given_s = (0.8, 0.2, 0.5, 0.05)
    ends = await asyncio.gather(*(ended(b"%d" % number, s) for number, s in enumerate(given_s)))
    assert all(s - 0.002 <= end < s + 0.15 for s, end in zip(given_s, ends, strict=True)), ends
    await coalescer.close()


def test_a_text_with_hardly_any_time_left_does_not_delay_others() -> None:
    async def run() -> None:
        coalescer = Coalescer(Calls(wait=lambda: 0.01), replace(LIMITS, call_slots=1))
        asked = [ask(coalescer, b"a", b"b", deadline_s=0.0003), ask(coalescer, b"c")]
        hasty, patient = await asyncio.gather(*asked)
        assert [type(answer) for answer in hasty] == [DeadlineExceeded] * 2
        assert patient == [scores(b"c")]

    uvloop.run(run())  # whose timers below half a millisecond are none


async def test_a_server_that_is_silent_for_too_long_loses_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.domain.coalescing.coalescer.OVERDUE_TIMEOUT_S", 20.0)
    calls = Calls()
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    await asyncio.gather(ask(coalescer, b"a", deadline_s=5), ask(coalescer, b"b", deadline_s=50))
    assert calls.deadlines == [pytest.approx(70, abs=1)]


async def test_abandoned_texts_do_not_pile_up_behind_a_call_that_hangs() -> None:
    coalescer = Coalescer(Calls(wait=lambda: 30), replace(LIMITS, call_slots=1))
    hanging = asyncio.create_task(ask(coalescer, b"hangs"))
    for _ in range(50):
        asked = [asyncio.create_task(ask(coalescer, b"x" * 1000)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    (queue,) = coalescer._queues.values()
    assert len(queue.waiting) < 150
    assert sum(len(text.data) for text in queue.waiting._texts) == 0
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)


async def test_a_batch_leaves_room_for_others_between_its_texts() -> None:
    calls = Calls(wait=lambda: 0.005)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    batch = asyncio.create_task(ask(coalescer, *(b"b%02d" % n for n in range(30))))
    await asyncio.sleep(0.002)
    assert await ask(coalescer, b"lone") == [scores(b"lone")]
    assert calls.texts.index(b"lone") < 10
    assert await batch == [scores(b"b%02d" % n) for n in range(30)]


async def test_when_texts_have_waited_for_too_long_more_are_refused_at_once() -> None:
    coalescer = Coalescer(Calls(wait=lambda: 0.1), replace(LIMITS, call_slots=1, max_queue_s=0.02))
    asked = [asyncio.create_task(ask(coalescer, text)) for text in (b"a",)]
    await asyncio.sleep(0.001)
    asked.append(asyncio.create_task(ask(coalescer, b"waits")))
    await asyncio.sleep(0.03)
    with pytest.raises(Overloaded):
        await ask(coalescer, b"late")
    window = Window(b"accepted before", 1, 0, 2, 9)
    assert await coalescer.classify(MODEL, [window], 60) == [scores(bytes(window))]
    assert await asyncio.gather(*asked) == [[scores(b"a")], [scores(b"waits")]]
    assert await ask(coalescer, b"later") == [scores(b"later")]


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 3),  # turns of the loop before it comes
        st.lists(st.binary(max_size=300), min_size=1, max_size=6),
        st.booleans(),  # whether its caller disconnects
    ),
    max_size=25,
)


@settings(deadline=None)
@given(REQUESTS, st.integers(1, 4), st.integers(1, 8), st.randoms(use_true_random=False))
def test_no_text_is_lost_sent_twice_or_mixed_up(
    requests: list[tuple[int, list[bytes], bool]], slots: int, most: int, chance: random.Random
) -> None:
    calls = Calls(wait=lambda: chance.choice((0, 0, 0.0005)))
    calls.fault = lambda texts: BackendFailed() if any(text[:1] == b"!" for text in texts) else None
    limits = CoalescingLimits(slots, most, 4.0, 30.0)
    # Each text contains its number, so that none can be mistaken for another.
    named = [
        [b"%b%d.%d" % (text, place, number) for number, text in enumerate(texts)]
        for place, (_, texts, _) in enumerate(requests)
    ]

    async def run() -> None:
        coalescer = Coalescer(calls, limits)

        async def one(place: int) -> None:
            turns, _, disconnects = requests[place]
            for _ in range(turns):
                await asyncio.sleep(0)
            task = asyncio.create_task(ask(coalescer, *named[place]))
            if disconnects:
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return
            for text, answer in zip(named[place], await task, strict=True):
                if text[:1] == b"!":
                    assert isinstance(answer, BackendFailed)
                else:
                    assert answer == scores(text)

        await asyncio.gather(*(one(place) for place in range(len(requests))))
        # Calls of callers that disconnected end, too.
        await asyncio.gather(*coalescer._calls)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not calls.open
        assert not coalescer._calls
        assert all(queue.slots.free(0) == slots for queue in coalescer._queues.values())

    asyncio.run(run())
    assert all(len(call) <= most for call in calls.sent)
    # A text is sent again only behind one that broke its call.
    broken = {text for call in calls.sent if any(t[:1] == b"!" for t in call) for text in call}
    once = [text for text in calls.texts if text not in broken]
    assert len(once) == len(set(once))


async def test_a_batch_has_its_deadline_also_in_a_call_with_a_later_one() -> None:
    calls = Calls(wait=lambda: 0.5)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    began = asyncio.get_running_loop().time()
    later = asyncio.create_task(ask(coalescer, b"c", deadline_s=10))
    answers = await ask(coalescer, b"a", b"b", b"x", b"y", b"z", deadline_s=0.05)
    assert asyncio.get_running_loop().time() - began < 0.3
    assert [type(answer) for answer in answers] == [DeadlineExceeded] * 5
    assert await later == [scores(b"c")]
