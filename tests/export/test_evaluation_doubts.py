"""A model that is worth nothing is told from one that is not, with and without labels."""

from __future__ import annotations

from itertools import permutations
from math import comb
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from export.evaluation.assignment import best_assignment
from export.evaluation.data import MULTI_LABEL
from export.evaluation.doubts import Doubt, best_order, chance_of, doubts

SINGLE = "single_label_classification"
MOODS = ("NEGATIVE", "POSITIVE")
MATRICES = st.integers(1, 6).flatmap(
    lambda n: hnp.arrays(np.int64, (n, n), elements=st.integers(0, 9))  # small, so that there are ties
)


def rows(indices: Any, labels: int) -> Any:
    """Bool [texts, labels] of one label a text."""
    return np.eye(labels, dtype=bool)[np.asarray(indices)]


def found(
    chosen: Any, targets: Any = None, labels: tuple[str, ...] = MOODS, problem_type: str = SINGLE
) -> list[Doubt]:
    evaluation: Any = SimpleNamespace(
        labels=labels,
        problem_type=problem_type,
        examples=SimpleNamespace(targets=targets, source="eval.csv"),
        measurements={"it": SimpleNamespace(answers=SimpleNamespace(chosen=chosen), ranking=None)},
    )
    return doubts(evaluation, "it")


def checks(*given_: Any, **more: Any) -> list[str]:
    return [doubt.check for doubt in found(*given_, **more)]


def spoilt(truth: Any, wrong: int, labels: int) -> Any:
    """The truth, but for the first ``wrong`` texts."""
    answers = truth.copy()
    answers[:wrong] = (answers[:wrong] + 1) % labels
    return answers


def test_reversed_labels_are_named_with_the_order_that_fits() -> None:
    truth = np.arange(300) % 2
    order, majority = found(rows(spoilt(truth, 189, 2), 2), rows(truth, 2))
    assert (order.check, majority.check) == ("label order", "majority")
    assert "right for 37.00 % of 300 texts" in order.found
    assert "it would be right for 63.00 %" in order.found
    assert 'This would fit: "0": "POSITIVE", "1": "NEGATIVE".' in order.remedy
    assert "the same answer to all of them, 'POSITIVE', would be right for 50.00 %" in majority.found
    assert "eval.csv" in majority.remedy


def test_one_answer_to_almost_everything_is_seen_with_and_without_labels() -> None:
    answers = rows([1] * 298 + [0] * 2, 2)
    majority, one = found(answers, rows((np.arange(300) % 3 == 0).astype(int), 2))
    assert majority.check == "majority"
    assert one.found == (
        "The model answers 'POSITIVE' to 298 of 300 texts (99.33 %); eval.csv has it for 100 (33.33 %)."
    )
    (one,) = found(answers)
    assert "The model answers 'POSITIVE' to 298 of 300 texts (99.33 %)" in one.found
    assert "--eval FILE" in one.remedy


@pytest.mark.parametrize(
    ("truth", "wrong"),
    [
        (np.arange(300) % 2, 33),  # 89 %, as the bundled model
        (np.arange(300) % 2, 140),  # hardly better than nothing, but no other order is
        ((np.arange(300) > 290).astype(int), 2),  # 97 % of the texts have one label, and the model knows more
    ],
)
def test_a_model_that_knows_something_raises_no_doubt(truth: Any, wrong: int) -> None:
    assert checks(rows(spoilt(truth, wrong, 2), 2), rows(truth, 2)) == []


def test_rare_labels_in_reversed_order_are_no_constant() -> None:
    truth = (np.arange(300) >= 293).astype(int)
    answers = spoilt(1 - truth, 3, 2)
    assert checks(rows(answers, 2), rows(truth, 2)) == ["label order", "majority", "one answer"]


def test_an_order_is_named_even_where_the_data_are_lopsided() -> None:
    truth = (np.arange(300) < 295).astype(int)
    answers = spoilt(1 - truth, 36, 2)
    order, majority = found(rows(answers, 2), rows(truth, 2))
    assert "right for 12.00 %" in order.found
    assert "it would be right for 88.00 %" in order.found
    assert "would be right for 98.33 %" in majority.found


def test_two_of_many_labels_that_were_exchanged_are_found() -> None:
    labels = tuple("abcdefghijkl")
    truth = np.arange(600) % 12
    answers = spoilt(truth, 60, 12)
    answers = np.where(answers == 3, 7, np.where(answers == 7, 3, answers))
    (doubt,) = found(rows(answers, 12), rows(truth, 12), labels=labels)
    assert 'This would fit: "3": "h", "7": "d".' in doubt.remedy


def test_any_order_of_many_labels_is_found_and_a_long_one_is_shortened() -> None:
    count = 60
    order = np.roll(np.arange(count), 7)
    truth = np.arange(3000) % count
    answers = spoilt(truth, 1000, count)
    inverse = np.argsort(order)
    assert best_order(rows(inverse[answers], count), rows(truth, count)) == order.tolist()
    labels = tuple(f"l{i}" for i in range(count))
    doubt = found(rows(inverse[answers], count), rows(truth, count), labels=labels)[0]
    assert '"0": "l53"' in doubt.remedy
    assert "and 40 more" in doubt.remedy


def test_several_labels_a_text_are_permuted_as_well() -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((400, 5)) < 0.3
    assert checks(targets, targets, labels=tuple("abcde")) == []
    (order, *_) = found(targets[:, [1, 0, 2, 3, 4]], targets, labels=tuple("abcde"))
    assert 'This would fit: "0": "b", "1": "a".' in order.remedy


def test_data_of_one_label_prove_nothing_and_a_warning_appears() -> None:
    (doubt,) = found(rows([1] * 50, 2), rows([1] * 50, 2))
    assert doubt.check == "one label in the data"
    assert "Every one of the 50 texts is labelled 'POSITIVE'" in doubt.found


def test_a_handful_of_texts_proves_nothing() -> None:
    assert checks(rows([1] * 19, 2), rows(np.arange(19) % 2, 2)) == []
    assert checks(rows([1] * 19, 2)) == []


def stopping(chosen: Any, targets: Any, **more: Any) -> list[str]:
    return [doubt.check for doubt in found(chosen, targets, **more) if doubt.stops]


def test_reversed_labels_and_one_answer_stop_with_the_order_that_fits() -> None:
    truth = np.arange(300) % 2
    reversed_ = rows(spoilt(truth, 189, 2), 2)
    assert stopping(reversed_, rows(truth, 2)) == ["label order", "majority"]
    assert found(reversed_, rows(truth, 2))[0].order == ("POSITIVE", "NEGATIVE")
    assert stopping(rows([1] * 298 + [0] * 2, 2), rows(truth, 2)) == ["majority", "one answer"]
    # Without labels nobody knows how many texts have that label.
    assert stopping(rows([1] * 300, 2), None) == []


@pytest.mark.parametrize(
    ("right", "texts", "rare", "stopped"),
    [
        (8, 10, 5, False),  # a handful is not judged, whatever was found
        (2, 10, 5, False),
        (9, 19, 9, False),
        (10, 20, 10, True),  # as good as its commonest label is not better
        (11, 20, 10, False),
        (11, 20, 9, False),  # too few others
        (150, 300, 150, True),
        (51, 60, 1, False),  # a good model of lopsided texts
        (190, 200, 10, True),
        (191, 200, 10, False),
        (191, 200, 9, False),
        (970, 1000, 30, True),
        (971, 1000, 30, False),  # better than one answer
    ],
)
def test_a_model_no_better_than_its_commonest_label_stops_from_20_texts_and_10_others_on(
    right: int, texts: int, rare: int, stopped: bool
) -> None:
    truth = (np.arange(texts) < texts - rare).astype(int)
    # Errors among both labels, so that it gives more than one answer.
    answers = truth.copy()
    wrong = texts - right
    missed = min(wrong // 2, rare)
    answers[: wrong - missed] = 0
    answers[texts - missed :] = 1
    assert (answers == truth).sum() == right
    assert ("majority" in stopping(rows(answers, 2), rows(truth, 2))) == stopped


@pytest.mark.parametrize(
    ("texts", "others", "given_", "stopped"),
    [(20, 2, 1, False), (100, 10, 0, True), (100, 10, 2, False), (300, 150, 2, True)],
)
def test_one_answer_stops_only_where_a_useful_model_would_have_given_more(
    texts: int, others: int, given_: int, stopped: bool
) -> None:
    truth = (np.arange(texts) >= others).astype(int)
    answers = (np.arange(texts) >= given_).astype(int)
    assert ("one answer" in stopping(rows(answers, 2), rows(truth, 2))) == stopped


@pytest.mark.parametrize(("right", "most"), [(0.8, 10), (0.9, 0)])
def test_hardly_any_useful_model_is_stopped_by_chance(right: float, most: int) -> None:
    rng = np.random.default_rng(7)
    stopped = 0
    for _ in range(1000):
        texts, labels = int(rng.integers(5, 60)), int(rng.integers(2, 6))
        truth = rng.integers(0, labels, texts)
        wrong = rng.random(texts) > right
        answers = np.where(wrong, (truth + rng.integers(1, labels, texts)) % labels, truth)
        names = tuple("abcdef"[:labels])
        stopped += bool(stopping(rows(answers, labels), rows(truth, labels), labels=names))
    assert stopped <= most


def test_whole_sets_of_labels_that_are_seldom_right_are_only_a_warning() -> None:
    rng = np.random.default_rng(1)
    targets = rng.random((400, 6)) < 0.1
    answers = targets ^ (rng.random((400, 6)) < 0.12)
    (doubt,) = found(answers, targets, labels=tuple("abcdef"), problem_type=MULTI_LABEL)
    assert (doubt.check, doubt.stops) == ("majority", False)


@given(st.integers(0, 40), st.integers(1, 40), st.floats(0.01, 0.99))
def test_the_chance_of_so_few_successes_is_that_of_the_binomial(few: int, trials: int, share: float) -> None:
    few = min(few, trials)
    exact = sum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(few + 1))
    assert chance_of(few, trials, share) == pytest.approx(exact, rel=1e-9, abs=1e-300)


def test_the_chance_is_known_for_any_number_of_texts() -> None:
    assert chance_of(10**6 // 2, 10**6, 0.5) == pytest.approx(0.5, abs=1e-3)
    assert chance_of(10, 10**6, 0.9) == 0.0
    assert (chance_of(0, 5, 0.0), chance_of(4, 5, 1.0), chance_of(5, 5, 1.0)) == (1.0, 0.0, 1.0)


def test_labels_that_no_text_has_stay_where_they_are() -> None:
    assert best_order(rows([0, 1, 1, 0], 9), rows([1, 0, 0, 1], 9)) == [1, 0, 2, 3, 4, 5, 6, 7, 8]
    assert best_order(rows(np.arange(2000), 2000), rows(np.arange(2000)[::-1], 2000)) == list(range(2000))


@given(MATRICES)
def test_no_assignment_is_better_and_none_as_good_moves_less(gain: Any) -> None:
    count = len(gain)
    order = best_assignment(gain)
    assert sorted(order) == list(range(count))

    def value(columns: Any) -> tuple[int, int]:
        return int(gain[range(count), columns].sum()), int((np.asarray(columns) == range(count)).sum())

    assert value(order) == max(value(columns) for columns in permutations(range(count)))
