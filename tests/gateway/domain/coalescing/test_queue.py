"""Queues that close, that belong to a model that was replaced, or that wait for a probe."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.domain.backend import RawScores
from gateway.domain.catalogue import Model
from gateway.domain.coalescing import slots
from gateway.domain.coalescing.coalescer import Coalescer
from gateway.domain.errors import BackendFailed
from tests.gateway.domain.coalescing.test_coalescer import LIMITS, MODEL, Calls, ask, scores
from tests.gateway.domain.coalescing.test_slots import Lossy, lose

ONE_SLOT = replace(LIMITS, call_slots=1, max_call_texts=1)


async def test_a_text_that_waits_for_a_probe_is_sent_without_further_traffic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "PROBE_PAUSE_S", 0.2)
    calls = Lossy()
    calls.lost = frozenset((b"lost", b"probe"))
    coalescer = Coalescer(calls, ONE_SLOT)
    await lose(coalescer, b"lost")
    await lose(coalescer, b"probe")
    assert await asyncio.wait_for(ask(coalescer, b"next", deadline_s=20), 2) == [scores(b"next")]
    await coalescer.close()


async def test_closing_sends_nothing_more_and_answers_every_text() -> None:
    calls = Calls(wait=lambda: 30)
    coalescer = Coalescer(calls, ONE_SLOT)
    asked = [asyncio.create_task(ask(coalescer, text)) for text in (b"sent", b"waits", b"waits too")]
    await asyncio.sleep(0.01)
    await coalescer.close()
    answers = await asyncio.wait_for(asyncio.gather(*asked), 2)
    assert [type(answer) for (answer,) in answers] == [BackendFailed] * 3
    assert calls.sent == [[b"sent"]]
    assert (coalescer.waiting, coalescer.calls) == (0, 0)


async def test_a_text_that_comes_after_closing_is_answered_and_not_sent() -> None:
    calls = Calls()
    coalescer = Coalescer(calls, ONE_SLOT)
    await coalescer.close()
    assert [type(answer) for answer in await asyncio.wait_for(ask(coalescer, b"late"), 2)] == [BackendFailed]
    assert calls.sent == []


async def test_a_replaced_model_keeps_its_slots_and_is_counted() -> None:
    calls = Calls(wait=lambda: 0.05)
    coalescer = Coalescer(calls, ONE_SLOT)
    old, new = replace(MODEL, version="1"), replace(MODEL, version="2")
    asked = []
    for number in range(4):
        asked += [
            asyncio.create_task(coalescer.classify(model, [b"%d" % number], 60)) for model in (old, new)
        ]
        await asyncio.sleep(0.001)
    assert (coalescer.calls, coalescer.waiting) == (2, 6)
    await asyncio.gather(*asked)
    assert calls.most_open == 2
    assert (coalescer.calls, coalescer.waiting) == (0, 0)


async def test_a_wrong_number_of_answers_is_no_answer_to_any_text(caplog: pytest.LogCaptureFixture) -> None:
    class Short(Calls):
        async def classify(
            self, model: Model, texts: Sequence[Any], deadline_s: float
        ) -> Sequence[RawScores]:
            return (await super().classify(model, texts, deadline_s))[1:]

    answers = await ask(Coalescer(Short(), replace(LIMITS, call_slots=1)), b"a", b"b", b"c")
    assert [type(answer) for answer in answers] == [BackendFailed] * 3
    assert "a call for" in caplog.text


async def test_texts_that_fill_the_models_batch_leave_without_a_gather_window() -> None:
    model = replace(MODEL, max_batch_size=2)
    waits = iter([0.2, *[0.02] * 20])
    calls = Calls(wait=lambda: next(waits))
    coalescer = Coalescer(calls, LIMITS)
    await coalescer.classify(model, [b"teaches how long a call takes"], 60)
    asked = [asyncio.create_task(coalescer.classify(model, [b"under way"], 60))]
    await asyncio.sleep(0.002)
    asked += [asyncio.create_task(coalescer.classify(model, [text], 60)) for text in (b"a", b"b")]
    for _ in range(4):
        await asyncio.sleep(0)
    sent = list(calls.sent)
    await asyncio.gather(*asked)
    assert sent[2:] == [[b"a", b"b"]]


async def test_a_model_that_changes_never_shares_a_call_with_what_it_was() -> None:
    calls = Calls(wait=lambda: 0.01)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1))
    seen: list[tuple[str, int]] = []

    async def classify(model: Model, texts: Sequence[Any], deadline_s: float) -> Sequence[RawScores]:
        seen.append((model.version, len(texts)))
        return await Calls.classify(calls, model, texts, deadline_s)

    calls.classify = classify  # type: ignore[method-assign]
    old, new = replace(MODEL, version="1"), replace(MODEL, version="2")
    await asyncio.gather(*(coalescer.classify(model, [b"a"], 60) for model in (old, new, old, new)))
    assert sum(count for version, count in seen if version == "1") == 2
    assert sum(count for version, count in seen if version == "2") == 2


async def test_closing_ends_the_calls_and_answers_their_texts() -> None:
    coalescer = Coalescer(Calls(wait=lambda: 30), LIMITS)
    asked = asyncio.create_task(ask(coalescer, b"a"))
    await asyncio.sleep(0.01)
    await coalescer.close()
    assert [type(answer) for answer in await asked] == [BackendFailed]
