"""From logits to labelled scores: pure functions on doubles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum

Score = tuple[str, float]
"""A label and its probability."""


class ProblemType(str, Enum):
    """How the logits become probabilities (names of Hugging Face ``config.problem_type``)."""

    SINGLE_LABEL = "single_label_classification"
    MULTI_LABEL = "multi_label_classification"


class InvalidLogits(ValueError):
    """The logits are not finite, or their number is not that of the labels."""


def softmax(logits: Sequence[float]) -> list[float]:
    """Return probabilities that sum to 1; the true maximum is subtracted, so nothing overflows."""
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def sigmoid(logits: Sequence[float]) -> list[float]:
    """Return one independent probability a logit, without overflow at either end."""
    return [
        1.0 / (1.0 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1.0 + math.exp(logit))
        for logit in logits
    ]


_NORMALISERS: dict[ProblemType, Callable[[Sequence[float]], list[float]]] = {
    ProblemType.SINGLE_LABEL: softmax,
    ProblemType.MULTI_LABEL: sigmoid,
}


def label_scores(logits: Sequence[float], labels: Sequence[str], problem: ProblemType) -> list[Score]:
    """Pair each label with its probability, in the order of ``labels``.

    Args:
        logits: one finite number a label.
        labels: the names, in the order of the model's outputs.
        problem: softmax for single-label models, sigmoid for multi-label ones.

    Raises:
        InvalidLogits: NaN, infinity, or a different number of logits than labels.
    """
    if len(logits) != len(labels) or not labels:
        raise InvalidLogits(f"{len(logits)} logits for {len(labels)} labels")
    if not all(map(math.isfinite, logits)):
        raise InvalidLogits("a logit is not finite")
    return list(zip(labels, _NORMALISERS[problem](logits), strict=True))


def best_first(scores: Sequence[Score]) -> list[Score]:
    """Return the scores sorted by probability; equal ones keep their order."""
    return sorted(scores, key=lambda entry: -entry[1])
