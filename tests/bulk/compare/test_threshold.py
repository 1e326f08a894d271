"""Which threshold on new scores keeps old decisions, and what is said of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk.compare.statistics import Share, percentile
from bulk.compare.threshold import Scored, advise, best_cut
from bulk.errors import BulkError

SCORES = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])


def repeated(scores: list[float], decided: list[bool], cut: float) -> int:
    return sum((score >= cut) == was for score, was in zip(scores, decided, strict=True))


@given(st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=40), SCORES)
def test_no_other_cut_repeats_more_decisions(pairs: list[tuple[float, bool]], preferred: float) -> None:
    scores, decided = [score for score, _ in pairs], [was for _, was in pairs]
    cut = best_cut(scores, decided, preferred)
    most = max(repeated(scores, decided, each) for each in [0.0, *scores, 2.0])
    assert repeated(scores, decided, cut) == most
    if repeated(scores, decided, preferred) == most:
        assert cut == preferred


def test_a_cut_lies_in_the_widest_gap_and_has_few_digits() -> None:
    assert best_cut([0.1, 0.2, 0.6137, 0.9], [False, False, True, True], 0.99) == 0.41
    # Two cuts are as good: 0.35 and 0.75.
    assert best_cut([0.3, 0.4, 0.5, 1.0], [False, True, False, True], 0.0) == 0.75


def moved_scores(seed: int, count: int = 400) -> list[Scored]:
    """Old scores, and new ones that are their square, with noise."""
    source = random.Random(seed)
    olds = [source.random() for _ in range(count)]
    return [
        Scored(f"text {place}", old, min(1.0, max(0.0, old * old + source.gauss(0, 0.03))))
        for place, old in enumerate(olds)
    ]


def test_a_shift_of_all_scores_is_found() -> None:
    advice = advise("POSITIVE", 0.8, moved_scores(1))
    assert advice.cut == pytest.approx(0.64, abs=0.05)  # 0.8 squared
    assert advice.cuts[0] <= advice.cut <= advice.cuts[1]
    assert advice.unchanged.same.value < 0.92
    assert advice.unchanged.gained < advice.unchanged.lost
    assert advice.fitted.same.count >= advice.held_out.count > advice.unchanged.same.count
    for decisions in (advice.unchanged, advice.fitted):
        assert decisions.same.count + decisions.gained + decisions.lost == 400


def test_the_held_out_share_is_what_other_texts_show() -> None:
    others = moved_scores(1000, 20_000)
    covered, fitted, held_out, real = 0, 0.0, 0.0, 0.0
    for seed in range(40):
        advice = advise("POSITIVE", 0.8, moved_scores(seed, 60))
        kept = sum((each.new >= advice.cut) == (each.old >= 0.8) for each in others) / len(others)
        low, high = advice.held_out.interval
        covered += low <= kept <= high
        fitted, held_out, real = (
            fitted + advice.fitted.same.value,
            held_out + advice.held_out.value,
            real + kept,
        )
    assert covered >= 34
    # What the cut was chosen on promises too much.
    assert fitted - real > 3 * abs(held_out - real)


def test_scores_without_a_relation_promise_nothing_held_out() -> None:
    source = random.Random(3)
    scored = [Scored(str(place), source.random(), source.random()) for place in range(60)]
    advice = advise("POSITIVE", 0.5, scored)
    # Some cut always fits the texts that it was chosen on.
    assert advice.fitted.same.value > 0.5
    assert advice.held_out.value < advice.fitted.same.value


def test_equal_texts_are_held_out_together() -> None:
    """A text that is also learned from would be judged by itself."""
    source = random.Random(4)
    alone = [Scored(f"{place}", source.random(), source.random()) for place in range(30)]
    advice, twice = advise("P", 0.5, alone), advise("P", 0.5, alone * 2)
    assert twice.held_out.count == 2 * advice.held_out.count
    assert twice.cuts == advice.cuts


def test_the_same_texts_give_the_same_advice_in_any_order() -> None:
    scored = moved_scores(5)
    assert advise("P", 0.8, scored) == advise("P", 0.8, scored[::-1])


@pytest.mark.parametrize(
    ("scored", "reason"),
    [
        (moved_scores(1, 19), "at least 20 texts"),
        ([Scored(str(place), 0.9, 0.1) for place in range(50)], "all 50 texts are above 0.8"),
        ([Scored(str(place), 0.7, 0.1) for place in range(50)], "all 50 texts are below 0.8"),
    ],
)
def test_texts_that_teach_nothing_are_refused(scored: list[Scored], reason: str) -> None:
    with pytest.raises(BulkError, match=reason):
        advise("POSITIVE", 0.8, scored)


def test_an_interval_is_that_of_wilson() -> None:
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for count, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert Share(count, total).interval == pytest.approx((low, high), abs=5e-5)
    assert str(Share(81, 263)) == "81 of 263 (30.8%; 95 %: 25.5% to 36.6%)"


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0, 0.5, 0.95, 1)] == [1, 50, 95, 100]
    assert percentile([7.0], 0.95) == 7
