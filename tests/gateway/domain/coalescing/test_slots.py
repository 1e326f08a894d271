"""The slots of calls whose answers are lost or late."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from gateway.domain.backend import RawScores
from gateway.domain.catalogue import Model
from gateway.domain.coalescing import slots
from gateway.domain.coalescing.coalescer import Coalescer
from gateway.domain.coalescing.slots import CALLS_PER_SLOT, Call, CallSlots
from gateway.domain.errors import DeadlineExceeded, Overloaded
from tests.gateway.domain.coalescing.test_coalescer import LIMITS, MODEL, Calls, ask, scores


class Lossy(Calls):
    """A backend that loses the calls of the texts in ``lost``, and answers all others."""

    lost: frozenset[bytes] = frozenset()

    async def classify(self, model: Model, texts: Sequence[Any], deadline_s: float) -> Sequence[RawScores]:
        if not self.lost.isdisjoint(texts):
            self.sent.append(list(texts))
            await asyncio.sleep(deadline_s)
            raise DeadlineExceeded
        return await super().classify(model, texts, deadline_s)


async def lose(coalescer: Coalescer, *texts: bytes) -> None:
    """Send each in a call of its own, and wait for its deadline."""
    answers = await asyncio.gather(*(ask(coalescer, text, deadline_s=0.05) for text in texts))
    assert [type(answer) for (answer,) in answers] == [DeadlineExceeded] * len(texts)


async def test_a_lost_call_gives_its_slot_back_at_the_deadline_of_its_texts() -> None:
    calls = Lossy()
    calls.lost = frozenset((b"lost", b"too"))
    coalescer = Coalescer(calls, replace(LIMITS, max_call_texts=1))
    await asyncio.wait_for(lose(coalescer, b"lost", b"too"), 5)
    assert await asyncio.wait_for(ask(coalescer, b"next"), 5) == [scores(b"next")]
    assert (coalescer.overdue, coalescer.calls) == (2, 2)
    await coalescer.close()
    assert (coalescer.overdue, coalescer.calls) == (0, 0)


async def test_a_lost_call_whose_callers_have_gone_gives_its_slot_back_too() -> None:
    calls = Lossy()
    calls.lost = frozenset((b"lost",))
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    gone = asyncio.create_task(ask(coalescer, b"lost", deadline_s=0.1))
    await asyncio.sleep(0.01)
    gone.cancel()
    assert await asyncio.wait_for(ask(coalescer, b"next"), 5) == [scores(b"next")]
    await coalescer.close()


async def test_after_a_lost_call_one_probes_and_the_others_follow_when_it_is_answered() -> None:
    calls = Lossy(wait=lambda: 0.05)
    calls.lost = frozenset((b"lost",))
    coalescer = Coalescer(calls, replace(LIMITS, max_call_texts=1))
    await lose(coalescer, b"lost")
    asked = [asyncio.create_task(ask(coalescer, text)) for text in (b"a", b"b", b"c")]
    await asyncio.sleep(0.02)
    assert calls.sent == [[b"lost"], [b"a"]]
    await asyncio.gather(*asked)
    assert calls.most_open == LIMITS.call_slots
    await coalescer.close()


async def test_a_server_that_is_only_slow_has_hardly_more_calls_than_slots() -> None:
    calls = Calls(wait=lambda: 0.3)
    coalescer = Coalescer(calls, replace(LIMITS, max_call_texts=1, max_queue_s=0.02))
    loop = asyncio.get_running_loop()
    ends = loop.time() + 0.8

    async def caller() -> None:
        while loop.time() < ends:
            with suppress(Overloaded):
                await ask(coalescer, b"a", deadline_s=0.05)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(caller() for _ in range(8)))
    assert calls.most_open <= LIMITS.call_slots + 1
    await asyncio.gather(*coalescer._calls)
    assert await ask(coalescer, b"patient") == [scores(b"patient")]


async def test_what_a_server_may_hold_is_bounded_and_more_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "PROBE_PAUSE_S", 0.0)
    calls = Lossy()
    texts = [b"%d" % number for number in range(20)]
    calls.lost = frozenset(texts)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1, max_call_texts=1))
    for text in texts[:CALLS_PER_SLOT]:
        await lose(coalescer, text)
    with pytest.raises(Overloaded):
        await ask(coalescer, b"more")
    assert len(calls.sent) == coalescer.overdue == CALLS_PER_SLOT
    await coalescer.close()


async def test_a_call_that_is_given_up_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.domain.coalescing.coalescer.OVERDUE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(slots, "PROBE_PAUSE_S", 0.0)
    calls = Lossy()
    texts = [b"%d" % number for number in range(CALLS_PER_SLOT)]
    calls.lost = frozenset(texts)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1, max_call_texts=1))
    await asyncio.gather(*(ask(coalescer, text, deadline_s=0.02 * n) for n, text in enumerate(texts, 1)))
    while coalescer.overdue:
        await asyncio.sleep(0.01)
    assert await ask(coalescer, b"next") == [scores(b"next")]


async def test_answers_in_time_are_reported_and_late_ones_are_not() -> None:
    answered: list[Model] = []
    coalescer = Coalescer(Calls(wait=lambda: 0.1), LIMITS, answered=answered.append)
    late = ask(coalescer, b"late", deadline_s=0.02)
    assert [type(answer) for answer in await late] == [DeadlineExceeded]
    await asyncio.gather(*coalescer._calls)
    assert answered == []
    await ask(coalescer, b"in time")
    assert answered == [MODEL]


def test_a_probe_is_due_after_its_pause_and_never_while_a_call_holds_a_slot() -> None:
    call_slots: CallSlots[Call] = CallSlots(1)
    assert call_slots.next_probe_at == math.inf
    lost, probe = Call(1.0), Call(3.0)
    call_slots.hold(lost, 0.0)
    call_slots.expire(1.0)
    assert call_slots.free(1.0) == 1
    call_slots.hold(probe, 2.0)
    assert (call_slots.free(2.5), call_slots.next_probe_at) == (0, math.inf)
    call_slots.expire(3.0)
    assert call_slots.next_probe_at == 2.0 + slots.PROBE_PAUSE_S
    call_slots.release(lost)
    call_slots.release(probe)
    assert call_slots.free(3.0) == 1
