from __future__ import annotations

from embedded import watchdog
from embedded.watchdog import Fault, FaultDetector, Observation


def observe(
    detector: FaultDetector, count: int, observation: Observation, *, working: bool = False
) -> list[Fault | None]:
    return [detector.observe(observation, working=working) for _ in range(count)]


def test_silence_without_work_is_a_wedge_after_eight_checks() -> None:
    assert observe(FaultDetector(), 8, Observation.SILENCE) == [None] * 7 + ["wedged"]


def test_an_answer_to_any_request_starts_the_count_again() -> None:
    detector = FaultDetector()
    observe(detector, 7, Observation.SILENCE)
    assert detector.observe(Observation.ANSWER, working=False) is None
    assert observe(detector, 7, Observation.SILENCE) == [None] * 7


def test_work_without_an_answer_is_overload_for_a_minute() -> None:
    found = observe(FaultDetector(), 60, Observation.SILENCE, working=True)
    assert found == [None] * 59 + ["wedged"]


def test_a_moment_of_work_between_silent_checks_counts() -> None:
    detector = FaultDetector()
    observe(detector, 7, Observation.SILENCE)
    assert detector.observe(Observation.SILENCE, working=True) is None
    assert observe(detector, 7, Observation.SILENCE) == [None] * 7


def test_three_errors_without_an_answer_between_are_a_failing_server() -> None:
    detector = FaultDetector()
    assert observe(detector, 2, Observation.FAILURE) == [None, None]
    detector.observe(Observation.ANSWER, working=True)
    assert observe(detector, 3, Observation.FAILURE) == [None, None, "failing"]


def test_a_wedge_is_not_declared_within_a_pause_of_five_seconds() -> None:
    assert watchdog.CHECK_S * watchdog._IDLE_CHECKS > 5 + 2
