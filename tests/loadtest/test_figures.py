"""The arithmetic of the bench."""

from __future__ import annotations

import math

import pytest

from loadtest.bench.figures import fit_line, medians, percentile, timed
from loadtest.bench.padding import padding_efficiency
from loadtest.bench.rounds import Way, alternate


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_a_percentile_is_the_value_of_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile(range(1, 101), share) == expected


def test_of_one_value_every_percentile_is_that_value_and_of_none_there_is_none() -> None:
    assert {percentile([7.0], share) for share in (0.0, 0.5, 1.0)} == {7.0}
    assert math.isnan(percentile([], 0.5))


def test_latencies_are_of_calls_and_the_rate_is_of_texts() -> None:
    sample = timed([0.004, 0.001, 0.002], seconds=0.5, texts_each=16)
    assert sample == {"rate": 96.0, "texts": 48, "p50_ms": 2.0, "p99_ms": 4.0}


def test_medians_are_taken_of_figures_that_every_round_has() -> None:
    rounds = [{"rate": 1.0, "p50_ms": 9.0}, {"rate": 100.0}, {"rate": 3.0, "p50_ms": 1.0}]
    assert medians(rounds) == {"rate": 3.0}


def test_a_straight_line_is_found_and_noise_lowers_its_r2() -> None:
    slope, intercept, r2 = fit_line([8, 64, 512], [3.0, 10.0, 66.0])
    assert (slope, intercept, r2) == pytest.approx((0.125, 2.0, 1.0))
    assert fit_line([8, 64, 512], [3.0, 30.0, 66.0])[2] < 0.99


def test_padding_counts_each_group_as_wide_as_its_longest_text() -> None:
    pairs = lambda lengths: [list(range(at, min(at + 2, len(lengths)))) for at in range(0, len(lengths), 2)]  # noqa: E731
    assert padding_efficiency({4: 1}, [10, 5, 3, 3], pairs) == pytest.approx(21 / 26)
    assert padding_efficiency({1: 5}, [10, 5, 3, 3], pairs) == 1.0


def test_padding_weighs_batch_sizes_by_how_often_they_were_executed() -> None:
    whole = lambda lengths: [list(range(len(lengths)))]  # noqa: E731
    # 1,000 batches of two: half of the 2 × 10 computed tokens … 12 of 20; alone nothing is wasted.
    found = padding_efficiency({2: 1000, 1: 1000}, [10, 2], whole)
    assert found == pytest.approx((12 + 6) / (20 + 6), rel=0.15)


class _Silent:
    def step(self, name: str) -> None: ...

    def advance(self, done: int, total: int) -> None: ...


def test_each_way_is_measured_once_a_round_in_turn_and_backwards_in_every_other_round() -> None:
    asked: list[str] = []

    def way(name: str) -> Way:
        return Way("http", name, lambda: asked.append(name) or {"rate": float(len(asked))})  # type: ignore[func-returns-value]

    first, second, third = alternate([way("a"), way("b"), way("c")], 3, _Silent())
    assert asked == ["a", "b", "c", "c", "b", "a", "a", "b", "c"]
    assert [sample["rate"] for sample in first.rounds] == [1.0, 6.0, 7.0]
    assert [sample["rate"] for sample in second.rounds] == [2.0, 5.0, 8.0]
    assert (third.name, third.medians["rate"]) == ("c", 4.0)
