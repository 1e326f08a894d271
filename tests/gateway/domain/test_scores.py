"""Properties of the numerics."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.scores import InvalidLogits, ProblemType, best_first, label_scores, sigmoid, softmax

LOGIT = st.floats(width=32, allow_nan=False, allow_infinity=False)
LOGITS = st.lists(LOGIT, min_size=1, max_size=20)
SINGLE, MULTI = ProblemType.SINGLE_LABEL, ProblemType.MULTI_LABEL


@given(LOGITS)
def test_softmax_is_a_distribution_even_for_the_largest_floats(logits: list[float]) -> None:
    probabilities = softmax(logits)
    assert all(0 <= p <= 1 for p in probabilities)
    assert math.fsum(probabilities) == pytest.approx(1, abs=1e-12)


@given(LOGITS)
def test_softmax_keeps_the_order_of_the_logits(logits: list[float]) -> None:
    probabilities = softmax(logits)
    for a, p in zip(logits, probabilities, strict=True):
        for b, q in zip(logits, probabilities, strict=True):
            assert not (a > b and p < q)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8), st.floats(-1000, 1000))
def test_softmax_does_not_change_when_all_logits_shift(logits: list[float], shift: float) -> None:
    shifted = softmax([logit + shift for logit in logits])
    assert shifted == pytest.approx(softmax(logits), abs=1e-9)


def test_softmax_of_very_negative_logits_is_not_zero_over_zero() -> None:
    # Subtracting the largest absolute value, a known mistake, would underflow everything here.
    assert softmax([-3e38, -3e38]) == [0.5, 0.5]
    assert softmax([-1000.0, 0.0]) == [0.0, 1.0]


@given(LOGITS)
def test_sigmoid_stays_in_range_and_is_symmetric(logits: list[float]) -> None:
    for p, q in zip(sigmoid(logits), sigmoid([-x for x in logits]), strict=True):
        assert 0 <= p <= 1
        assert p + q == pytest.approx(1, abs=1e-12)


def test_sigmoid_has_the_textbook_values() -> None:
    assert sigmoid([0.0, 2.0, -2.0]) == pytest.approx([0.5, 0.8807970779778823, 0.11920292202211755])


@given(LOGITS, st.sampled_from(ProblemType))
def test_labels_keep_their_order(logits: list[float], problem: ProblemType) -> None:
    labels = [f"label {number}" for number in range(len(logits))]
    assert [label for label, _ in label_scores(logits, labels, problem)] == labels


def test_the_problem_type_chooses_the_function() -> None:
    assert label_scores([1.0, 1.0], ["a", "b"], SINGLE) == [("a", 0.5), ("b", 0.5)]
    assert [score for _, score in label_scores([1.0, 1.0], ["a", "b"], MULTI)] == sigmoid([1.0, 1.0])


@given(LOGITS, st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_one_logit_that_is_not_finite_spoils_all(
    logits: list[float], bad: float, data: st.DataObject
) -> None:
    logits[data.draw(st.integers(0, len(logits) - 1))] = bad
    for problem in ProblemType:
        with pytest.raises(InvalidLogits):
            label_scores(logits, ["x"] * len(logits), problem)


@pytest.mark.parametrize(("logits", "labels"), [([], []), ([1.0], ["a", "b"]), ([1.0, 2.0], ["a"])])
def test_as_many_logits_as_labels_are_needed(logits: list[float], labels: list[str]) -> None:
    with pytest.raises(InvalidLogits):
        label_scores(logits, labels, SINGLE)


@given(st.lists(st.tuples(st.text(), st.floats(0, 1)), max_size=10))
def test_best_first_is_a_stable_sort(scores: list[tuple[str, float]]) -> None:
    found = best_first(scores)
    assert sorted(found) == sorted(scores)
    assert [s for _, s in found] == sorted((s for _, s in scores), reverse=True)
    for value in {s for _, s in scores}:
        assert [e for e in found if e[1] == value] == [e for e in scores if e[1] == value]
