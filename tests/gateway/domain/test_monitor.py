"""Readiness, with a clock and a backend of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from gateway.domain.backend import Answer, RawScores
from gateway.domain.catalogue import Catalogue, Ensemble, Model
from gateway.domain.errors import AiError, BackendFailed, BackendUnavailable, DeadlineExceeded, Overloaded
from gateway.domain.health import ModelHealth
from gateway.domain.monitor import Monitor, MonitorTimes
from tests.gateway.domain.test_catalogue import ensemble


class Backend:
    """Two models; what goes wrong is set by the test."""

    def __init__(self) -> None:
        self.ensembles: list[Ensemble] = [ensemble("a", name="A"), ensemble("b", name="B")]
        self.discovery: Exception | None = None
        self.discoveries = 0

    async def discover(self) -> Sequence[Ensemble]:
        self.discoveries += 1
        if self.discovery is not None:
            raise self.discovery
        return self.ensembles

    async def classify(self, model: Model, texts: Sequence[Any], deadline_s: float) -> Sequence[RawScores]:
        raise AssertionError("canaries go the way of all texts")


class Source:
    """Answers texts as the test has set it."""

    def __init__(self) -> None:
        self.inference: dict[str, AiError] = {}
        self.asked: list[str] = []
        self.wait: asyncio.Event | None = None
        self.open = 0
        self.most_open = 0

    async def classify(self, model: Model, texts: Sequence[Any], deadline_s: float) -> list[Answer]:
        self.asked.append(model.name)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        if self.wait is not None:
            await self.wait.wait()
        await asyncio.sleep(0)
        self.open -= 1
        return [self.inference.get(model.name, RawScores((0.0, 0.0), 2)) for _ in texts]


class Stage:
    def __init__(self, canaries_per_s: float = 1000.0) -> None:
        self.now = 100.0
        self.backend = Backend()
        self.catalogue = Catalogue()
        self.source = Source()
        self.health = ModelHealth(10.0, clock=lambda: self.now)
        times = MonitorTimes(0.02, 0.01, 1.0, canaries_per_s=canaries_per_s)
        self.monitor = Monitor(
            self.backend, self.source, self.catalogue, self.health, times, clock=lambda: self.now
        )


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_nothing_known_is_not_ready(stage: Stage) -> None:
    assert stage.monitor.why_not_ready() == "no model is known"
    stage.backend.ensembles = []
    await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() == "no model is known"


async def test_every_model_must_have_answered(stage: Stage) -> None:
    stage.source.inference["B"] = BackendFailed()
    await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() == "no canary answer from B"
    stage.source.inference.clear()
    await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() is None


@pytest.mark.parametrize("error", [BackendFailed(), BackendUnavailable()])
async def test_a_broken_model_turns_readiness_off_at_once(stage: Stage, error: AiError) -> None:
    await stage.monitor.refresh()
    stage.source.inference["A"] = error
    await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() == "no canary answer from A"


@pytest.mark.parametrize("error", [DeadlineExceeded(), Overloaded()])
async def test_a_busy_model_is_ready_until_canaries_have_waited_for_too_long(
    stage: Stage, error: AiError
) -> None:
    await stage.monitor.refresh()
    stage.source.inference["A"] = error
    await stage.monitor.refresh()
    stage.now += 9.9
    await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() is None
    stage.now += 0.1
    assert stage.monitor.why_not_ready() == "no canary answer from A"


async def test_the_catalogue_survives_a_failed_discovery(stage: Stage) -> None:
    await stage.monitor.refresh()
    stage.backend.discovery = BackendUnavailable()
    await stage.monitor.refresh()
    assert [model.name for model in stage.catalogue] == ["A", "B"]


async def test_a_changed_model_needs_a_canary_of_its_own(stage: Stage) -> None:
    await stage.monitor.refresh()
    stage.backend.ensembles = [ensemble("a", name="A", max_tokens="128")]
    stage.source.inference["A"] = DeadlineExceeded()
    await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() == "no canary answer from A"


async def test_draining_is_for_good(stage: Stage) -> None:
    await stage.monitor.refresh()
    stage.monitor.start_draining()
    await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() == "draining"


async def test_the_loop_survives_a_defect_and_recovers(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.backend.discovery = RuntimeError("a defect")
    task = asyncio.create_task(stage.monitor.run())
    try:
        while stage.backend.discoveries < 3:
            await asyncio.sleep(0.005)
        assert stage.monitor.why_not_ready() is not None
        stage.backend.discovery = None
        await asyncio.wait_for(stage.monitor.wait_until_ready(), 5)
        assert stage.monitor.why_not_ready() is None
        assert "a defect" in caplog.text
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_answers_to_others_count_while_the_canary_is_stuck_in_the_crowd(stage: Stage) -> None:
    await stage.monitor.refresh()
    stage.source.inference = {"A": DeadlineExceeded(), "B": DeadlineExceeded()}
    for _ in range(3):
        stage.now += 6.0
        for model in stage.catalogue:
            stage.health.answered(model)
        await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() is None
    stage.now += 11.0
    await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() == "no canary answer from A, B"


async def test_a_call_without_a_server_turns_readiness_off_until_the_next_answer(stage: Stage) -> None:
    await stage.monitor.refresh()
    model = next(iter(stage.catalogue))
    stage.health.unavailable(model)
    assert stage.monitor.why_not_ready() == "no canary answer from A"
    stage.health.answered(model)
    assert stage.monitor.why_not_ready() is None


async def test_a_call_without_a_server_brings_the_next_refresh_forward(stage: Stage) -> None:
    stage.monitor._times = MonitorTimes(600.0, 0.01, 1.0)
    task = asyncio.create_task(stage.monitor.run())
    try:
        await asyncio.wait_for(stage.monitor.wait_until_ready(), 5)
        stage.health.unavailable(next(iter(stage.catalogue)))
        for _ in range(500):
            if stage.monitor.why_not_ready() is None:
                break
            await asyncio.sleep(0.01)
        assert stage.monitor.why_not_ready() is None
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_model_without_requests_stays_ready(stage: Stage) -> None:
    await stage.monitor.refresh()
    stage.now += 1000.0
    assert stage.monitor.why_not_ready() is None


def many(models: int, canaries_per_s: float = 20.0) -> Stage:
    stage = Stage(canaries_per_s)
    stage.backend.ensembles = [ensemble(f"e{n:04}", name=f"M{n:04}") for n in range(models)]
    return stage


async def test_at_the_start_all_models_are_asked_a_few_at_a_time() -> None:
    stage = many(1000)
    await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() is None
    assert len(stage.source.asked) == 1000
    assert stage.source.most_open <= 8


async def test_canaries_go_round_within_their_budget_and_all_models_stay_ready() -> None:
    stage = many(1000)
    await stage.monitor.refresh()
    for _ in range(3):  # rounds
        stage.source.asked.clear()
        for _ in range(10):
            asked = len(stage.source.asked)
            stage.now += 5.0
            await stage.monitor.refresh()
            assert len(stage.source.asked) - asked <= 5 * 20
            assert stage.monitor.why_not_ready() is None
        assert len(set(stage.source.asked)) == len(stage.source.asked) == 1000


async def test_models_that_answer_callers_leave_the_canaries_to_the_others() -> None:
    stage = many(300)
    await stage.monitor.refresh()
    stage.source.asked.clear()
    for _ in range(10):
        stage.now += 5.0
        for model in list(stage.catalogue)[:200]:
            stage.health.answered(model)
        await stage.monitor.refresh()
    assert set(stage.source.asked) == {f"M{n:04}" for n in range(200, 300)}


async def test_a_silent_server_gets_few_canaries_and_delays_no_refresh() -> None:
    stage = many(1000)
    stage.source.inference = {f"M{n:04}": DeadlineExceeded() for n in range(1000)}
    await stage.monitor.refresh()
    assert len(stage.source.asked) <= 16
    reason = stage.monitor.why_not_ready()
    assert reason is not None
    assert len(reason) < 100


async def test_models_behind_broken_ones_have_their_turn() -> None:
    stage = many(100)
    stage.source.inference = {f"M{n:04}": BackendFailed() for n in range(50)}
    for _ in range(20):
        stage.now += 0.5
        await stage.monitor.refresh()
    assert set(stage.source.asked) == {f"M{n:04}" for n in range(100)}
    stage.source.inference.clear()
    await stage.monitor.refresh()
    assert stage.monitor.why_not_ready() is None


async def test_a_canary_that_is_not_back_is_not_sent_again_and_counts_when_it_comes(stage: Stage) -> None:
    stage.monitor._times = MonitorTimes(0.02, 0.01, 0.01)
    stage.source.wait = asyncio.Event()
    for _ in range(3):
        await stage.monitor.refresh()
    assert sorted(stage.source.asked) == ["A", "B"]
    assert stage.monitor.why_not_ready() == "no canary answer from A, B"
    stage.source.wait.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert stage.monitor.why_not_ready() is None
