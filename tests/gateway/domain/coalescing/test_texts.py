"""Waiting texts, without a coalescer: order, deadlines, abandoned texts."""

from __future__ import annotations

import asyncio
import math

import pytest

from gateway.domain.coalescing.texts import QueuedText, WaitingTexts
from gateway.domain.errors import BackendFailed, DeadlineExceeded
from gateway.domain.inputs import ModelInput, Window

RATIO = 4.0


def text(data: ModelInput = b"text", *, deadline: float = 10.0, arrived: float = 0.0) -> QueuedText:
    return QueuedText(data, None, arrived, deadline, asyncio.get_running_loop().create_future())


def queue(*texts: QueuedText) -> WaitingTexts:
    waiting = WaitingTexts()
    for each in texts:
        waiting.append(each)
    return waiting


async def test_texts_that_do_not_fit_keep_their_places() -> None:
    short, long, short_too, long_too = text(b"s"), text(b"l" * 900), text(b"t"), text(b"m" * 901)
    waiting = queue(short, long, short_too, long_too)
    assert waiting.take(4, RATIO, 0.0) == [short, short_too]
    assert waiting.take(4, RATIO, 0.0) == [long, long_too]
    assert not waiting


def window(of: bytes, number: int, deadline: float) -> QueuedText:
    return text(Window(of, number, 0, 9, 900), deadline=deadline)


async def test_windows_have_every_other_call_and_the_text_that_ends_first_goes_on() -> None:
    later = [window(b"later", number, 8.0) for number in (1, 2)]
    texts = [text(b"l" * 900), text(b"l" * 900)]
    sooner = [window(b"sooner", number, 7.0) for number in (3, 4)]
    waiting = queue(*later, *texts, *sooner)
    assert len(waiting) == 6
    assert waiting.take(9, RATIO, 0.0) == sooner
    assert waiting.take(1, RATIO, 0.0) == texts[:1]
    assert waiting.take(1, RATIO, 0.0) == later[:1]
    assert waiting.take(9, RATIO, 0.0) == texts[1:]
    assert waiting.take(9, RATIO, 0.0) == later[1:]
    assert waiting.take(9, RATIO, 0.0) == []
    waiting = queue(window(b"later", 1, 8.0), texts[0])
    assert waiting.waited_s(3.0) == 3.0
    assert queue(window(b"later", 1, 8.0)).waited_s(3.0) == 0.0
    assert waiting.expire(9.0) == 10.0
    assert len(waiting) == 1


async def test_a_share_takes_the_oldest() -> None:
    texts = [text() for _ in range(5)]
    waiting = queue(*texts)
    assert waiting.take(2, RATIO, 0.0) == texts[:2]
    assert len(waiting) == 3


async def test_texts_past_their_deadline_are_answered_and_removed_wherever_they_are() -> None:
    late, in_time, late_too = text(deadline=1.0), text(deadline=3.0), text(deadline=2.0)
    waiting = queue(late, in_time, late_too)
    assert waiting.expire(2.0) == 3.0
    assert isinstance(late.answer.result(), DeadlineExceeded)
    assert isinstance(late_too.answer.result(), DeadlineExceeded)
    assert waiting.take(4, RATIO, 2.0) == [in_time]
    assert waiting.expire(2.0) == math.inf


async def test_a_text_past_its_deadline_is_never_taken() -> None:
    late, in_time = text(deadline=1.0), text()
    assert queue(late, in_time).take(4, RATIO, 1.0) == [in_time]
    assert isinstance(late.answer.result(), DeadlineExceeded)


async def test_an_abandoned_text_is_not_taken_and_releases_its_content() -> None:
    gone, kept = text(), text()
    waiting = queue(gone, kept)
    gone.answer.cancel()
    waiting.abandon(gone)
    assert gone.data == b""
    assert waiting.take(4, RATIO, 0.0) == [kept]


async def test_abandoning_a_text_that_was_sent_leaves_it_to_its_call() -> None:
    sent = text()
    waiting = queue(sent)
    waiting.take(1, RATIO, 0.0)
    waiting.abandon(sent)
    assert sent.data == b"text"


@pytest.mark.parametrize("taken_first", [True, False])
async def test_abandoned_texts_are_counted_once_in_either_order(taken_first: bool) -> None:
    texts = [text() for _ in range(200)]
    waiting = queue(*texts)
    for each in texts[:60]:
        each.answer.cancel()
        if not taken_first:
            waiting.abandon(each)
    waiting.take(1, RATIO, 0.0)
    if taken_first:
        for each in texts[:60]:
            waiting.abandon(each)
    assert waiting._abandoned == 0
    assert len(waiting) == 139


async def test_answering_all_empties_the_queue() -> None:
    answered, waits = text(), text()
    waiting = queue(answered, waits)
    answered.answer.set_result(DeadlineExceeded())
    waiting.answer_all(BackendFailed())
    assert isinstance(answered.answer.result(), DeadlineExceeded)
    assert isinstance(waits.answer.result(), BackendFailed)
    assert not waiting


async def test_the_wait_is_that_of_the_oldest() -> None:
    assert WaitingTexts().waited_s(5.0) == 0.0
    assert queue(text(arrived=2.0), text(arrived=4.0)).waited_s(5.0) == 3.0
