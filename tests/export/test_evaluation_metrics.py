from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from export.evaluation.classification import Mistake, quality
from export.evaluation.data import MULTI_LABEL
from export.evaluation.metrics import (
    accuracy,
    agreement,
    answers,
    expected_calibration_error,
    flipped,
    shifts,
    wilson_interval,
)

SINGLE = "single_label_classification"
LOGITS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.floats(-30, 30, width=32),
)
KINDS = st.sampled_from([SINGLE, MULTI_LABEL])


def logits(*rows: list[float]) -> Any:
    return np.array(rows, np.float32)


@given(LOGITS, KINDS)
def test_anything_agrees_with_itself(values: Any, kind: str) -> None:
    given_answers = answers(values, kind)
    found = agreement(given_answers, given_answers)
    assert (found.share, found.largest_shift, found.same) == (1.0, 0.0, len(values))


@given(LOGITS, KINDS, st.integers(0, 2**32 - 1))
def test_comparing_is_symmetric_and_its_figures_are_in_order(values: Any, kind: str, seed: int) -> None:
    other = values + np.random.default_rng(seed).normal(0, 2, values.shape).astype(np.float32)
    one, two = answers(values, kind), answers(other, kind)
    there, back = agreement(one, two), agreement(two, one)
    assert there == back
    assert 0 <= there.mean_shift <= there.largest_shift + 1e-12
    assert there.p99_shift <= there.largest_shift <= 1
    assert there.same == len(values) - flipped(one, two).sum()


@given(LOGITS, KINDS)
def test_what_was_chosen_is_accurate_when_it_is_what_was_wanted(values: Any, kind: str) -> None:
    given_answers = answers(values, kind)
    right = accuracy(given_answers, given_answers.chosen, kind)
    assert right.correct == right.texts == len(values)
    assert right.low < right.share == 1.0 == pytest.approx(right.high)
    wrong = accuracy(given_answers, ~given_answers.chosen, kind)
    assert wrong.correct == 0
    assert right.calibration_error + wrong.calibration_error == pytest.approx(1.0)


@given(LOGITS)
def test_a_text_has_one_label_of_the_highest_score(values: Any) -> None:
    found = answers(values, SINGLE)
    assert (found.chosen.sum(axis=1) == 1).all()
    assert np.array_equal(found.scores[found.chosen], found.scores.max(axis=1))


def test_a_multi_label_text_has_every_label_above_one_half_and_is_right_only_if_all_are() -> None:
    given_answers = answers(logits([3, -3, 1], [-1, -1, -1], [2, 2, 2]), MULTI_LABEL)
    assert given_answers.chosen.tolist() == [[True, False, True], [False] * 3, [True] * 3]
    targets = np.array([[True, False, True], [False, False, False], [True, False, False]])
    found = accuracy(given_answers, targets, MULTI_LABEL)
    assert found.correct == 2
    assert found.per_label == pytest.approx((1, 2 / 3, 2 / 3))


def test_a_text_without_finite_logits_is_wrong_and_flipped_and_the_others_are_not() -> None:
    good, bad = logits([2, 0], [0, 2]), logits([np.nan, 0], [0, np.inf])
    mixed = answers(np.concatenate([good, bad]), SINGLE)
    reference = answers(np.concatenate([good, good]), SINGLE)
    assert mixed.finite.tolist() == [True, True, False, False]
    assert flipped(mixed, reference).tolist() == [False, False, True, True]
    assert accuracy(mixed, reference.chosen, SINGLE).correct == 2
    assert shifts(mixed.scores, reference.scores)[2:].min() > 0.8


def test_a_tie_that_falls_the_other_way_is_a_flip() -> None:
    one, two = answers(logits([0.001, 0]), SINGLE), answers(logits([0, 0.001]), SINGLE)
    assert agreement(one, two).share == 0


def test_the_calibration_error_of_a_worked_example() -> None:
    # Two bins: {0.55, 0.57} is right once, {0.95, 0.95, 0.91} always.
    confidence = np.array([0.55, 0.57, 0.95, 0.95, 0.91])
    right = np.array([True, False, True, True, True])
    expected = (abs(1.12 - 1) + abs(2.81 - 3)) / 5
    assert expected_calibration_error(confidence, right) == pytest.approx(expected)


def test_bins_are_closed_on_the_right_as_in_the_paper() -> None:
    # 0.5 belongs to the lower of two bins, so the two errors do not cancel out.
    confidence, right = np.array([0.5, 0.6]), np.array([True, False])
    assert expected_calibration_error(confidence, right, bins=2) == pytest.approx((0.5 + 0.6) / 2)


def test_the_wilson_interval_of_a_known_case() -> None:
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, method 3


@given(st.integers(1, 5000), st.data())
def test_the_interval_holds_the_share_and_stays_within_bounds(total: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, total))
    low, high = wilson_interval(correct, total)
    # Its ends are the shares from which the one that was found is so many standard deviations away.
    for end in (low, high):
        assert abs(correct / total - end) == pytest.approx(
            1.959964 * (end * (1 - end) / total) ** 0.5, abs=1e-7
        )
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1


def test_many_labels_have_no_matrix_but_their_commonest_mistakes() -> None:
    count = 5000
    truth = np.arange(20) % 10
    logits = np.zeros((20, count), np.float32)
    logits[np.arange(20), np.where(truth == 4, 4999, truth)] = 9
    targets = np.eye(count, dtype=bool)[truth]
    found = quality(answers(logits, SINGLE), targets, SINGLE)
    assert found.matrix is None
    assert found.mistakes == (Mistake(4, 4999, 2),)
    assert found.macro_f1 == pytest.approx(9 / 11)  # of the eleven labels that occur
