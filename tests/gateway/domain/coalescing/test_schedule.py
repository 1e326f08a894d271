"""Timers, the gather window and the grouping of a queue."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.domain.catalogue import Ensemble, parse_model
from gateway.domain.coalescing.grouping import (
    CALL_BYTES,
    LONG_BYTES_PER_TOKEN,
    SHORT_BYTES,
    CallGroup,
    length_class,
    may_share,
)
from gateway.domain.coalescing.schedule import GATHER_SHARE, LONGEST_GATHER_S, EarliestTimer, GatherWindow
from gateway.domain.inputs import Window
from tests.gateway.domain.test_catalogue import GOOD

MODEL = parse_model(Ensemble("e", GOOD))


async def test_a_timer_calls_back_once_at_the_earliest_time() -> None:
    loop = asyncio.get_running_loop()
    fired: list[float] = []
    timer = EarliestTimer(lambda: fired.append(loop.time()))
    began = loop.time()
    for delay_s in (5.0, 0.02, 0.5):
        timer.request(began + delay_s)
    await asyncio.sleep(0.1)
    assert len(fired) == 1
    assert fired[0] - began == pytest.approx(0.02, abs=0.05)


async def test_a_timer_that_was_asked_for_this_turn_waits_for_no_other_time() -> None:
    fired: list[None] = []
    timer = EarliestTimer(lambda: fired.append(None))
    timer.request(asyncio.get_running_loop().time() + 5)
    timer.request_soon()
    timer.request_soon()
    assert fired == []
    await asyncio.sleep(0)
    assert fired == [None]


async def test_a_cancelled_timer_can_be_asked_again() -> None:
    fired: list[None] = []
    timer = EarliestTimer(lambda: fired.append(None))
    timer.request_soon()
    timer.cancel()
    await asyncio.sleep(0)
    assert fired == []
    timer.request_soon()
    await asyncio.sleep(0)
    assert fired == [None]


def test_the_gather_window_is_a_share_of_what_calls_take_and_bounded() -> None:
    window = GatherWindow()
    assert window.seconds == 0
    for _ in range(100):
        window.observe(0.01)
    assert window.seconds == pytest.approx(GATHER_SHARE * 0.01, rel=0.01)
    for _ in range(100):
        window.observe(10.0)
    assert window.seconds == LONGEST_GATHER_S


def test_length_classes() -> None:
    long = LONG_BYTES_PER_TOKEN * MODEL.max_tokens
    sizes = (0, long, long + 1, CALL_BYTES, CALL_BYTES + 1)
    assert [length_class(bytes(size), MODEL) for size in sizes] == [0, 0, 1, 1, 2]
    windows = [Window(bytes(size), 1, 0, 2, long + 1) for size in sizes]
    assert [length_class(window, MODEL) for window in windows] == [0, 0, 1, 1, 2]  # those of their texts


def test_a_window_shares_calls_with_windows_of_its_text_alone() -> None:
    text, window = b"a b c", Window(b"a b c", 1, 0, 2, 9)
    assert may_share(text, b"d")
    assert may_share(window, replace(window, number=2))
    assert not may_share(window, replace(window, text=b"d"))
    assert not may_share(window, text)
    assert not may_share(text, window)


def test_a_group_takes_similar_lengths_up_to_its_room() -> None:
    group = CallGroup(100, 4.0)
    assert [group.accepts(size) for size in (1, SHORT_BYTES, 400, 401)] == [True, True, True, False]
    assert not CallGroup(1000, 4.0).accepts(249)
    group = CallGroup(CALL_BYTES - 500, 4.0)
    assert not group.accepts(CALL_BYTES)
    group = CallGroup(6000, 4.0)
    assert [group.accepts(size) for size in (6000, 6000, 4000)] == [True, False, True]
