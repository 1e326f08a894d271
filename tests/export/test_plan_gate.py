"""Whether a plan may be served, as docker/triton judges it: what is special about rerankers."""

from __future__ import annotations

import random

import pytest
from plans.gate import judge, same_order
from plans.kit import Batch, Limits

LIMITS = Limits(accuracy_drop=0.002, agreement=0.99, speedup=1.0)


def batches(logits: list[float], size: int = 7) -> list[Batch]:
    parts = [logits[start : start + size] for start in range(0, len(logits), size)]
    return [Batch((len(part), 8), "judged", 0, tuple((value,) for value in part), ()) for part in parts]


def found(logits: list[float], size: int = 7) -> list[list[list[float]]]:
    return [[[value] for value in logits[start : start + size]] for start in range(0, len(logits), size)]


def scores(count: int = 60) -> list[float]:
    """Logits of a reranker: most texts are not relevant."""
    draw = random.Random(1)
    return [draw.uniform(-9, -1) for _ in range(count)]


def test_a_reranker_that_keeps_the_order_passes_whatever_its_scale() -> None:
    wanted = scores()
    verdict = judge(
        found([value / 2 + 5 for value in wanted]), batches(wanted), "multi_label_classification", LIMITS
    )
    assert verdict.failed == ()
    assert (verdict.agreement, verdict.texts) == (1.0, 60)


@pytest.mark.parametrize(
    "spoil", [lambda value: -4.0, lambda value: -10 - value, lambda value: round(value / 4) - 1.0]
)
def test_a_reranker_with_another_order_does_not_although_no_sign_has_changed(spoil: object) -> None:
    assert callable(spoil)
    wanted = scores()
    spoilt = [spoil(value) for value in wanted]
    assert all(value < 0 for value in spoilt)
    verdict = judge(found(spoilt), batches(wanted), "multi_label_classification", LIMITS)
    (reason,) = verdict.failed
    assert reason.startswith("it orders ")
    assert "of all pairs of 60 texts as FP32 does, 99.00% are needed" in reason


def test_the_share_of_pairs_in_the_same_order_is_that_of_counting_them() -> None:
    draw = random.Random(2)
    for _ in range(20):
        wanted = [float(draw.randint(0, 8)) for _ in range(25)]
        other = [value + draw.choice((-2.0, 0.0, 0.5, 2.0)) for value in wanted]
        ordered = [(a, b) for a in range(25) for b in range(25) if wanted[a] < wanted[b]]
        same = sum(other[a] < other[b] for a, b in ordered)
        assert same_order(wanted, other) == pytest.approx(same / len(ordered))
    assert same_order([1.0, 1.0], [0.0, 5.0]) == 1.0
