"""When the load test asks."""

from __future__ import annotations

import itertools
import statistics

import pytest

from loadtest.arrivals import SHAPES, arrivals, users_at


def test_even_arrivals_have_equal_gaps() -> None:
    times = list(arrivals("constant", 50, 4, even=True, seed=1))
    assert len(times) == 200
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert max(gaps) - min(gaps) < 1e-9
    assert 0 <= times[0] < 1 / 50


def test_random_arrivals_have_the_rate_and_the_spread_of_independent_callers() -> None:
    times = list(arrivals("constant", 100, 100, even=False, seed=1))
    assert len(times) == pytest.approx(10_000, rel=0.03)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize(("shape", "mean"), [("constant", 1), ("soak", 1), ("ramp", 0.55), ("spike", 1.4)])
def test_a_shape_asks_for_its_share(shape: str, mean: float, even: bool) -> None:
    times = list(arrivals(shape, 100, 60, even, seed=2))
    assert len(times) == pytest.approx(6000 * mean, rel=0.05)
    assert times == sorted(times)
    assert times[-1] < 60


def test_a_spike_is_three_times_as_much_for_a_fifth_of_the_time() -> None:
    times = list(arrivals("spike", 100, 10, even=True, seed=1))
    assert sum(4 <= time < 6 for time in times) == pytest.approx(600, rel=0.02)
    assert sum(time < 4 for time in times) == pytest.approx(400, rel=0.02)


def test_a_ramp_grows() -> None:
    times = list(arrivals("ramp", 100, 10, even=True, seed=1))
    counts = [sum(second <= time < second + 1 for time in times) for second in range(10)]
    assert counts == sorted(counts)
    assert counts[-1] > 5 * counts[0]


def test_generators_of_different_seeds_do_not_beat_in_time() -> None:
    first, second = (next(arrivals("constant", 1, 60, even=True, seed=seed)) for seed in (1, 2))
    assert first != second


def test_users_follow_the_shape_and_there_is_always_one() -> None:
    assert [users_at("ramp", 100, 10, time) for time in (0, 5, 10, 11)] == [10, 55, 100, 100]
    assert [users_at("spike", 10, 10, time) for time in (0, 5, 8)] == [10, 30, 10]
    assert min(users_at(shape, 1, 10, 0) for shape in SHAPES) == 1
