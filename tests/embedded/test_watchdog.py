from __future__ import annotations

from embedded import vitals
from embedded.vitals import Pulse, Sign, Trouble


def looks(pulse: Pulse, count: int, sign: Sign, *, working: bool = False) -> list[Trouble | None]:
    return [pulse.feel(sign, working=working) for _ in range(count)]


def test_silence_without_work_is_a_wedge_after_eight_looks() -> None:
    assert looks(Pulse(), 8, Sign.SILENCE) == [None] * 7 + ["wedged"]


def test_an_answer_to_anybody_starts_the_count_again() -> None:
    pulse = Pulse()
    looks(pulse, 7, Sign.SILENCE)
    assert pulse.feel(Sign.ANSWER, working=False) is None
    assert looks(pulse, 7, Sign.SILENCE) == [None] * 7


def test_work_without_an_answer_is_overload_for_a_minute() -> None:
    found = looks(Pulse(), 60, Sign.SILENCE, working=True)
    assert found == [None] * 59 + ["wedged"]


def test_a_moment_of_work_between_silent_looks_counts() -> None:
    pulse = Pulse()
    looks(pulse, 7, Sign.SILENCE)
    assert pulse.feel(Sign.SILENCE, working=True) is None
    assert looks(pulse, 7, Sign.SILENCE) == [None] * 7


def test_three_errors_without_an_answer_between_are_a_failing_server() -> None:
    pulse = Pulse()
    assert looks(pulse, 2, Sign.FAILURE) == [None, None]
    pulse.feel(Sign.ANSWER, working=True)
    assert looks(pulse, 3, Sign.FAILURE) == [None, None, "failing"]


def test_a_wedge_is_not_declared_within_a_pause_of_five_seconds() -> None:
    assert vitals.LOOK_S * vitals._IDLE_LOOKS > 5 + 2
