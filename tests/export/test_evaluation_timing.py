"""Timing with a clock that only the stand-ins move."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.evaluation import timing
from export.evaluation.runner import Candidate
from export.evaluation.settings import TimingSettings
from export.evaluation.timing import Speed, mix_of, time_artefacts

ROWS = [[2] * length for length in (3, 5, 5, 9, 14, 30, 31, 60) * 10]


class Clock:
    """Seconds that pass by ``work``; ``pace`` is how slow the machine is just now."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pace = 1.0
        self.heard: list[str] = []

    def work(self, name: str, seconds: float) -> None:
        self.now += self.pace * seconds
        if self.heard[-1:] != [name]:
            self.heard.append(name)

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=made.perf_counter))
    return made


class Worker:
    """Takes so long a token, padding included, and something for every run."""

    def __init__(self, clock: Clock, name: str, per_token: float) -> None:
        self.clock, self.name, self.per_token = clock, name, per_token
        clock.now += 0.25  # loading

    def run(self, ids: Any, mask: Any, types: Any = None) -> Any:
        self.clock.work(self.name, self.per_token * (ids.size + 4))
        return np.zeros((len(ids), 2), np.float32)


def measure(
    clock: Clock, speeds: dict[str, float], settings: TimingSettings, **options: Any
) -> dict[str, Speed]:
    artefacts = {
        name: Candidate("fp32", 1, lambda threads, name=name, each=each: Worker(clock, name, each))  # type: ignore[misc]
        for name, each in speeds.items()
    }
    advance = options.get("advance", lambda *_: None)
    return time_artefacts(artefacts, "fp32", ROWS, 64, settings, advance)


def test_figures_are_what_the_clock_says(clock: Clock) -> None:
    found = measure(clock, {"fp32": 4e-4, "quick": 1e-4}, TimingSettings(seconds=10))
    reference, quick = found["fp32"], found["quick"]
    assert quick.texts == reference.texts == len(ROWS)
    assert quick.alone_per_second == pytest.approx(len(ROWS) / (1e-4 * sum(len(row) + 4 for row in ROWS)))
    assert (quick.alone_ratio, quick.grouped_ratio) == pytest.approx((4, 4))
    assert reference.alone_ratio == reference.grouped_ratio == 1
    assert quick.grouped_per_second > quick.alone_per_second  # fewer runs, little padding
    assert quick.load_ms == pytest.approx(250)
    assert quick.by_length == pytest.approx({8: 1.2, 16: 2.0, 32: 3.6, 64: 6.8})
    assert quick.alone_ms == pytest.approx(0.1 * (11.5 + 4))
    assert quick.alone_p99_ms == pytest.approx(0.1 * (60 + 4))


def test_a_machine_that_slows_down_between_rounds_does_not_change_the_ratios(clock: Clock) -> None:
    def slower(done: int, total: int) -> None:
        clock.pace *= 3

    found = measure(clock, {"fp32": 4e-4, "quick": 1e-4}, TimingSettings(seconds=10), advance=slower)
    assert found["quick"].grouped_ratio == pytest.approx(4)
    assert max(found["quick"].rounds) > 80 * min(found["quick"].rounds)


def test_every_round_begins_with_another_artefact(clock: Clock) -> None:
    firsts: list[str] = []

    def note(done: int, total: int) -> None:
        # Before the first round all are warmed up, twice and in the given order.
        firsts.append(clock.heard[0])
        clock.heard.clear()

    measure(clock, {"fp32": 1e-4, "b": 1e-4, "c": 1e-4}, TimingSettings(rounds=4), advance=note)
    assert firsts == ["fp32", "b", "c", "fp32"]


def test_a_slow_artefact_makes_all_answer_fewer_texts_of_the_same_mix(clock: Clock) -> None:
    found = measure(clock, {"fp32": 1e-4, "slow": 1e-2}, TimingSettings(seconds=10))
    assert found["fp32"].texts == found["slow"].texts
    assert 32 <= found["slow"].texts < len(ROWS)


@pytest.mark.parametrize("settings", [{"rounds": 0}, {"loads": 0}])
def test_nothing_can_be_measured_in_no_rounds(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        TimingSettings(**settings)


@pytest.mark.parametrize("count", [32, 100, 5000])
def test_fewer_texts_are_as_long_on_average(count: int) -> None:
    lengths = [int(length) for length in np.random.default_rng(0).lognormal(3.1, 0.5, 1842) + 3]
    picked = mix_of(lengths, count)
    assert len(set(picked)) == len(picked) == min(count, 1842)
    assert np.mean([lengths[index] for index in picked]) == pytest.approx(np.mean(lengths), rel=0.02)
