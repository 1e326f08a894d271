"""What the log says of a Triton that is away."""

from __future__ import annotations

import logging

import grpc
import pytest

from gateway.triton.outages import Outages
from gateway.triton.status import CallFailed

AWAY = CallFailed(grpc.StatusCode.UNAVAILABLE, "cannot connect")
BUSY = CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED)


class Stage:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "tritonflare.backend")
        self._caplog = caplog
        self.now = 0.0
        self.outages = Outages("triton:8001", lambda: self.now)

    def fail_for(self, seconds: float, failure: CallFailed = AWAY, pause_s: float = 0.5) -> list[float]:
        """Fail a call now and after each pause; return when that was said, in seconds from the first."""
        began, said = self.now, []
        while self.now < began + seconds:
            before = len(self.lines)
            self.outages.failed("RepositoryIndex", failure)
            if len(self.lines) > before:
                said.append(self.now - began)
            self.now += pause_s
        return said

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def stage(caplog: pytest.LogCaptureFixture) -> Stage:
    return Stage(caplog)


def test_a_triton_that_stays_away_is_logged_with_its_address_and_growing_pauses(stage: Stage) -> None:
    assert stage.fail_for(300) == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert set(stage.lines) == {
        "RepositoryIndex: UNAVAILABLE (cannot connect) from Triton at triton:8001;"
        " Triton's own log may say why"
    }


def test_failures_that_take_seconds_each_are_paced_too(stage: Stage) -> None:
    assert len(stage.fail_for(300, BUSY, pause_s=2.5)) <= 10


def test_its_return_is_logged_once(stage: Stage) -> None:
    stage.outages.worked()
    assert stage.lines == []
    stage.fail_for(4.0)
    stage.outages.worked()
    stage.outages.worked()
    assert stage.lines[-1] == "Triton at triton:8001 answers again, after 4.0 s"
    assert len(stage.lines) == 4


def test_the_next_outage_is_logged_at_once(stage: Stage) -> None:
    stage.fail_for(10)
    stage.outages.worked()
    stage.now += 60
    assert stage.fail_for(4) == [0, 1, 3]


def test_one_that_fails_half_of_the_calls_does_not_fill_the_log(stage: Stage) -> None:
    for _ in range(600):
        stage.fail_for(0.1, pause_s=0.1)
        stage.outages.worked()
        stage.now += 0.1
    assert len(stage.lines) <= 20  # in two minutes


def test_a_deadline_is_no_absence(stage: Stage) -> None:
    stage.fail_for(1, BUSY)
    stage.outages.worked()
    assert len(stage.lines) == 1


def test_what_triton_got_wrong_is_always_reported(stage: Stage) -> None:
    for _ in range(3):
        stage.outages.failed("ModelInfer", CallFailed(grpc.StatusCode.INTERNAL), logging.ERROR)
    assert len(stage.lines) == 3
