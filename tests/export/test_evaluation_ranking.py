"""How the order of a query's texts is compared and judged, on numbers small enough to count by hand."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.evaluation.doubts import doubts
from export.evaluation.ranking import (
    Ranking,
    compare_rankings,
    kendall_tau,
    random_reciprocal_rank,
    reciprocal_rank,
)


def array(*values: float) -> Any:
    return np.array(values, np.float32)


def tau_by_pairs(one: Any, other: Any) -> float:
    """Kendall's tau-b, pair by pair, as the paper defines it."""
    agree = differ = ties_one = ties_other = 0
    for i, j in itertools.combinations(range(len(one)), 2):
        a, b = one[i] - one[j], other[i] - other[j]
        agree += a * b > 0
        differ += a * b < 0
        ties_one += a == 0
        ties_other += b == 0
    pairs = math.comb(len(one), 2)
    return (agree - differ) / math.sqrt((pairs - ties_one) * (pairs - ties_other))


def test_kendalls_tau_of_known_orders() -> None:
    up = array(1, 2, 3, 4)
    assert kendall_tau(up, up) == 1
    assert kendall_tau(up, -up) == -1
    assert kendall_tau(up, array(1, 2, 4, 3)) == pytest.approx(4 / 6)
    assert kendall_tau(array(5, 5), array(1, 1)) == 1  # neither orders anything
    assert kendall_tau(array(5, 5), array(1, 2)) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_kendalls_tau_is_that_of_the_definition(pairs: list[tuple[int, int]]) -> None:
    one, other = (array(*column) for column in zip(*pairs, strict=True))
    if len(set(one)) > 1 and len(set(other)) > 1:
        assert kendall_tau(one, other) == pytest.approx(tau_by_pairs(one, other))


def test_a_query_of_thousands_of_texts_is_compared_in_parts() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=2_500).astype(np.float32)
    assert kendall_tau(one, one) == 1
    assert abs(kendall_tau(one, rng.permutation(one))) < 0.1


def test_orders_are_compared_query_by_query() -> None:
    reference = array(3, 2, 1, 9, 5, 5, 7)
    # The second query's first text changes places; the third has one text, and orders nothing.
    given_ = array(30, 20, 10, 1, 5, 4, 0)
    found = compare_rankings(given_, reference, [(0, 1, 2), (3, 4, 5), (6,)])
    assert (found.queries, found.same_top, found.top_share, found.changed) == (2, 1, 0.5, (4,))
    assert found.kendall_tau == pytest.approx((1 + found.lowest_tau) / 2)
    assert found.lowest_tau == pytest.approx(tau_by_pairs(array(1, 5, 4), array(9, 5, 5)))
    assert found.relevance is None


def test_either_of_two_equal_first_texts_is_the_first() -> None:
    found = compare_rankings(array(1, 2, 0), array(7, 7, 1), [(0, 1, 2)])
    assert found.same_top == 1


def test_the_reciprocal_rank_counts_equal_scores_against_the_model() -> None:
    relevant = np.array([False, True, False])
    assert reciprocal_rank(array(1, 3, 2), relevant) == 1
    assert reciprocal_rank(array(3, 1, 2), relevant) == 1 / 3
    assert reciprocal_rank(array(1, 1, 1), relevant) == 1 / 3
    many = np.arange(20) == 0
    assert reciprocal_rank(np.arange(20.0), many) == 0  # beyond the tenth place


@pytest.mark.parametrize(("texts", "relevant"), [(2, 1), (5, 2), (6, 6), (4, 3)])
def test_the_rank_of_a_random_order_is_the_mean_over_all_orders(texts: int, relevant: int) -> None:
    ranks = [
        reciprocal_rank(array(*order), np.arange(texts) < relevant)
        for order in itertools.permutations(range(texts))
    ]
    assert random_reciprocal_rank(texts, relevant) == pytest.approx(np.mean(ranks))


def test_only_queries_with_a_relevant_text_have_a_rank() -> None:
    relevant = np.array([False, True, False, False])
    found = compare_rankings(array(2, 1, 4, 3), array(1, 2, 3, 4), [(0, 1), (2, 3)], relevant)
    assert found.relevance is not None
    assert (found.relevance.queries, found.relevance.mrr) == (1, 0.5)
    assert (found.relevance.random, found.relevance.backwards) == (0.75, 1)


def found_doubts(ranking: Ranking) -> list[str]:
    evaluation: Any = SimpleNamespace(
        examples=SimpleNamespace(source="pairs.csv"), measurements={"it": SimpleNamespace(ranking=ranking)}
    )
    return [f"{each.check}: {each.found}" for each in doubts(evaluation, "it")]


def ranked(scores: Any, relevant: Any) -> Ranking:
    """40 queries of 5 texts."""
    groups = [tuple(range(start, start + 5)) for start in range(0, 200, 5)]
    return compare_rankings(scores, scores, groups, relevant)


def test_a_head_that_scores_everything_alike_or_backwards_raises_doubts() -> None:
    relevant = np.arange(200) % 5 == 2
    good = np.where(relevant, 3, np.arange(200) % 5 / 10).astype(np.float32)
    assert found_doubts(ranked(good, relevant)) == []
    (backwards,) = found_doubts(ranked(-good, relevant))
    assert backwards.startswith("no better than chance: MRR@10 is 0.200 over 40 queries, and a random order")
    assert "backwards it would be 1.000" in backwards
    flat = np.full(200, 0.25, np.float32)
    assert [each.split(":")[0] for each in found_doubts(ranked(flat, None))] == ["one score"]
