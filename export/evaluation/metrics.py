"""How good scores are and how far from other scores: pure functions on arrays.

Scores are probabilities, float64 [texts, labels]; *chosen* and *targets* are bool of that
shape, True where a text has that label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from export.evaluation.data import MULTI_LABEL
from export.scores import probabilities

Scores = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]
CALIBRATION_BINS = 15
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Answers:
    """Scores with the labels that they choose; a text whose logits are not finite has neither.

    finite: bool [texts].
    """

    scores: Scores
    chosen: Chosen
    finite: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Accuracy:
    """Texts whose labels are all right, and how honest the scores are about it.

    ``low`` and ``high`` are the 95 % Wilson interval of ``share``; ``per_label`` is the share
    of texts for which each label is right, for multi-label models only.
    """

    correct: int
    texts: int
    share: float
    low: float
    high: float
    calibration_error: float
    per_label: tuple[float, ...] | None


@dataclass(frozen=True)
class Agreement:
    """How far scores are from a reference's; |Δp| of a text is that of its most moved label."""

    same: int
    texts: int
    share: float
    largest_shift: float
    p99_shift: float
    mean_shift: float


def answers(logits: npt.NDArray[np.float32], problem_type: str) -> Answers:
    """Scores and chosen labels of logits FP32 [texts, labels].

    The label with the highest score, or for multi-label models all above one half.
    """
    finite = np.isfinite(logits).all(axis=1)
    scores = probabilities(np.where(finite[:, None], logits, np.float32(0)), problem_type)
    scores[~finite] = 0.0
    if problem_type == MULTI_LABEL:
        chosen = scores > 0.5
    else:
        chosen = np.eye(scores.shape[1], dtype=bool)[scores.argmax(axis=1)] & finite[:, None]
    return Answers(scores, chosen, finite)


def accuracy(given: Answers, targets: Chosen, problem_type: str) -> Accuracy:
    """Compare with what the texts should be called."""
    right = given.chosen == targets
    correct, texts = int(right.all(axis=1).sum()), len(targets)
    low, high = wilson_interval(correct, texts)
    per_label = tuple(right.mean(axis=0).tolist()) if problem_type == MULTI_LABEL else None
    error = expected_calibration_error(*confidences(given, targets, problem_type))
    return Accuracy(correct, texts, correct / texts, low, high, error, per_label)


def confidences(given: Answers, targets: Chosen, problem_type: str) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """How sure each decision was, float64 [decisions], and whether it was right, bool [decisions].

    A text is one decision; of a multi-label model every label of it is one, and the score of the side that it
    took is its confidence.
    """
    right = given.chosen == targets
    if problem_type == MULTI_LABEL:
        return np.maximum(given.scores, 1 - given.scores).ravel(), right.ravel()
    return given.scores.max(axis=1), right.all(axis=1)


def agreement(given: Answers, reference: Answers) -> Agreement:
    """Compare with a reference's answers to the same texts; ties count like any other text."""
    same = int((~flipped(given, reference)).sum())
    moved = shifts(given.scores, reference.scores)
    return Agreement(
        same=same,
        texts=len(moved),
        share=same / len(moved),
        largest_shift=float(moved.max()),
        p99_shift=float(np.quantile(moved, 0.99)),
        mean_shift=float(moved.mean()),
    )


def flipped(given: Answers, reference: Answers) -> npt.NDArray[np.bool_]:
    """Bool [texts]: the labels differ, or there are none because the logits were not finite."""
    differ: npt.NDArray[np.bool_] = (given.chosen != reference.chosen).any(axis=1) | ~given.finite
    return differ


def shifts(scores: Scores, reference: Scores) -> Scores:
    """|Δp| of each text's most moved label, float64 [texts]."""
    moved: Scores = np.abs(scores - reference).max(axis=1)
    return moved


def expected_calibration_error(
    confidence: Scores, right: npt.NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> float:
    """Mean gap between confidence and accuracy over bins of equal width, weighted by their size.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.

    Args:
        confidence: probability of each decision, float64 [decisions], in 0…1.
        right: whether it was right, bool [decisions].
        bins: number of bins over 0…1.
    """
    # Bins are open on the left, as in the paper; zero itself goes to the first.
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share (Wilson 1927).

    `bulk.compare.statistics.Share` has the other one: the two packages must not import each other.
    """
    share = correct / total
    middle = share + _Z * _Z / (2 * total)
    reach = _Z * math.sqrt(share * (1 - share) / total + _Z * _Z / (4 * total * total))
    scale = 1 + _Z * _Z / total
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)
