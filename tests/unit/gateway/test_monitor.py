"""Readiness, with a clock and a backend of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from gateway.domain.backend import RawScores
from gateway.domain.catalogue import Catalogue, Ensemble, Model
from gateway.domain.errors import BackendFailed, BackendUnavailable, DeadlineExceeded, Overloaded
from gateway.domain.monitor import Monitor, MonitorTimes

from .test_catalogue import ensemble


class Backend:
    """Two models; what goes wrong is set by the test."""

    def __init__(self) -> None:
        self.ensembles: list[Ensemble] = [ensemble("a", name="A"), ensemble("b", name="B")]
        self.discovery: Exception | None = None
        self.inference: dict[str, Exception] = {}
        self.looks = 0

    async def discover(self) -> Sequence[Ensemble]:
        self.looks += 1
        if self.discovery is not None:
            raise self.discovery
        return self.ensembles

    async def classify(self, model: Model, texts: Sequence[bytes], deadline_s: float) -> Sequence[RawScores]:
        if model.name in self.inference:
            raise self.inference[model.name]
        return [RawScores((0.0, 0.0), 2) for _ in texts]


class Stage:
    def __init__(self) -> None:
        self.now = 100.0
        self.backend = Backend()
        self.catalogue = Catalogue()
        times = MonitorTimes(0.02, 0.01, 1.0, 10.0)
        self.monitor = Monitor(self.backend, self.catalogue, times, clock=lambda: self.now)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_nothing_known_is_not_ready(stage: Stage) -> None:
    assert stage.monitor.why_not_ready() == "no model is known"
    stage.backend.ensembles = []
    await stage.monitor.look()
    assert stage.monitor.why_not_ready() == "no model is known"


async def test_every_model_must_have_answered(stage: Stage) -> None:
    stage.backend.inference["B"] = BackendFailed()
    await stage.monitor.look()
    assert stage.monitor.why_not_ready() == "no canary answer from B"
    stage.backend.inference.clear()
    await stage.monitor.look()
    assert stage.monitor.why_not_ready() is None


@pytest.mark.parametrize("error", [BackendFailed(), BackendUnavailable()])
async def test_a_broken_model_turns_readiness_off_at_once(stage: Stage, error: Exception) -> None:
    await stage.monitor.look()
    stage.backend.inference["A"] = error
    await stage.monitor.look()
    assert stage.monitor.why_not_ready() == "no canary answer from A"


@pytest.mark.parametrize("error", [DeadlineExceeded(), Overloaded()])
async def test_a_busy_model_is_ready_until_its_last_answer_is_too_old(stage: Stage, error: Exception) -> None:
    await stage.monitor.look()
    stage.backend.inference["A"] = error
    stage.now += 9.9
    await stage.monitor.look()
    assert stage.monitor.why_not_ready() is None
    stage.now += 0.1
    assert stage.monitor.why_not_ready() == "no canary answer from A"


async def test_the_catalogue_survives_a_failed_discovery(stage: Stage) -> None:
    await stage.monitor.look()
    stage.backend.discovery = BackendUnavailable()
    await stage.monitor.look()
    assert [model.name for model in stage.catalogue] == ["A", "B"]


async def test_a_changed_model_needs_a_canary_of_its_own(stage: Stage) -> None:
    await stage.monitor.look()
    stage.backend.ensembles = [ensemble("a", name="A", max_tokens="128")]
    stage.backend.inference["A"] = DeadlineExceeded()
    await stage.monitor.look()
    assert stage.monitor.why_not_ready() == "no canary answer from A"


async def test_draining_is_for_good(stage: Stage) -> None:
    await stage.monitor.look()
    stage.monitor.start_draining()
    await stage.monitor.look()
    assert stage.monitor.why_not_ready() == "draining"


async def test_the_loop_survives_a_defect_and_recovers(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.backend.discovery = RuntimeError("a defect")
    task = asyncio.create_task(stage.monitor.run())
    try:
        while stage.backend.looks < 3:
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
    await stage.monitor.look()
    stage.backend.inference = {"A": DeadlineExceeded(), "B": DeadlineExceeded()}
    for _ in range(3):
        stage.now += 6.0
        for model in stage.catalogue:
            stage.monitor.answered(model)
        await stage.monitor.look()
    assert stage.monitor.why_not_ready() is None
    stage.now += 11.0
    await stage.monitor.look()
    assert stage.monitor.why_not_ready() == "no canary answer from A, B"
