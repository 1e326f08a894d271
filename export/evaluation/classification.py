"""How good a classifier is, label by label: pure functions on arrays.

Scores are probabilities, float64 [texts, labels]; *chosen* and *targets* are bool of that shape, True
where a text has that label. Definitions are those of scikit-learn, which the tests compare with; a
share of nothing is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.evaluation.data import MULTI_LABEL
from export.evaluation.metrics import CALIBRATION_BINS, Answers, Chosen, Scores, confidences

WORST = 20
"""How many errors are listed."""
MOST_IN_MATRIX = 30
"""With more labels than that there is no matrix, only the commonest mistakes."""


@dataclass(frozen=True)
class LabelQuality:
    """One label: shares in 0…1; support is how many texts have it, predicted how many got it."""

    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True)
class Mistake:
    """How many texts of one label were given another; both are indices of labels."""

    label: int
    answered: int
    texts: int


@dataclass(frozen=True)
class CalibrationBin:
    """Decisions of about the same confidence: how many, their mean confidence, the share that was right."""

    decisions: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Quality:
    """A classifier's answers to labelled texts.

    majority: texts that the commonest label is right for, or the commonest set of labels. macro_f1: mean of
    the labels' F1, over those that occur in the data or in the answers. log_loss: mean of the texts' losses,
    natural logarithm. matrix: texts by label (rows) and answer (columns); None for multi-label models and
    above MOST_IN_MATRIX labels. Texts without an answer are in no column. mistakes: the commonest first.
    calibration: bins that hold a decision. worst: indices of the WORST wrong texts with the greatest loss,
    the worst first. losses: theirs.
    """

    majority: int
    macro_f1: float
    log_loss: float
    labels: tuple[LabelQuality, ...]
    matrix: tuple[tuple[int, ...], ...] | None
    mistakes: tuple[Mistake, ...]
    calibration: tuple[CalibrationBin, ...]
    worst: tuple[int, ...]
    losses: tuple[float, ...]


def quality(given: Answers, targets: Chosen, problem_type: str) -> Quality:
    """Measure answers to texts whose labels are known.

    Args:
        given: scores and chosen labels of the texts.
        targets: bool [texts, labels]; at least one text.
        problem_type: how logits became scores.
    """
    loss = losses(given.scores, targets, problem_type)
    wrong = np.flatnonzero((given.chosen != targets).any(axis=1))
    # Stable: of equal losses the first text comes first.
    worst = wrong[np.argsort(-loss[wrong], kind="stable")][:WORST]
    labels = _by_label(given.chosen, targets)
    occurring = [each.f1 for each in labels if each.support or each.predicted]
    pairs = () if problem_type == MULTI_LABEL else _pairs(given, targets)
    return Quality(
        majority=most_frequent(targets)[1],
        macro_f1=float(np.mean(occurring)) if occurring else 0.0,
        log_loss=float(loss.mean()),
        labels=labels,
        matrix=None if problem_type == MULTI_LABEL else _matrix(pairs, targets.shape[1]),
        mistakes=tuple(each for each in pairs if each.label != each.answered)[:WORST],
        calibration=calibration(*confidences(given, targets, problem_type)),
        worst=tuple(worst.tolist()),
        losses=tuple(loss[worst].tolist()),
    )


def losses(scores: Scores, targets: Chosen, problem_type: str) -> Scores:
    """The cross-entropy of each text, float64 [texts]; of multi-label models the mean over the labels."""
    tiny = np.finfo(np.float64).eps
    bounded = np.clip(scores, tiny, 1 - tiny)
    found: Scores
    if problem_type == MULTI_LABEL:
        found = -np.where(targets, np.log(bounded), np.log1p(-bounded)).mean(axis=1)
    else:
        found = -np.log(bounded[targets])
    return found


def most_frequent(rows: Chosen) -> tuple[Chosen, int]:
    """The commonest set of labels, bool [labels], and how many texts have it."""
    found, counts = np.unique(rows, axis=0, return_counts=True)
    place = int(counts.argmax())
    return found[place], int(counts[place])


def calibration(
    confidence: Scores, right: npt.NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> tuple[CalibrationBin, ...]:
    """Confidence and accuracy in bins of equal width, those of the expected calibration error."""
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for each in np.unique(place):
        inside = place == each
        found.append(
            CalibrationBin(int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean()))
        )
    return tuple(found)


def _by_label(chosen: Chosen, targets: Chosen) -> tuple[LabelQuality, ...]:
    hits = (chosen & targets).sum(axis=0)
    support, predicted = targets.sum(axis=0), chosen.sum(axis=0)
    found = []
    for hit, wanted, got in zip(hits.tolist(), support.tolist(), predicted.tolist(), strict=True):
        found.append(
            LabelQuality(
                precision=hit / got if got else 0.0,
                recall=hit / wanted if wanted else 0.0,
                f1=2 * hit / (wanted + got) if wanted + got else 0.0,
                support=wanted,
                predicted=got,
            )
        )
    return tuple(found)


def _pairs(given: Answers, targets: Chosen) -> tuple[Mistake, ...]:
    """How often each pair of label and answer occurs, the commonest first; right answers among them."""
    wanted, got = targets.argmax(axis=1)[given.finite], given.chosen.argmax(axis=1)[given.finite]
    # Not a matrix: of ten thousand labels it would fill the memory.
    found, counts = np.unique(np.stack([wanted, got], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(Mistake(int(found[i, 0]), int(found[i, 1]), int(counts[i])) for i in order)


def _matrix(pairs: Sequence[Mistake], labels: int) -> tuple[tuple[int, ...], ...] | None:
    if labels > MOST_IN_MATRIX:
        return None
    counts = np.zeros((labels, labels), np.int64)
    for each in pairs:
        counts[each.label, each.answered] = each.texts
    return tuple(tuple(row) for row in counts.tolist())
