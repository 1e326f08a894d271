"""Which threshold on new scores keeps the decisions that were made on old ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from bulk.compare.statistics import Share
from bulk.errors import BulkError

_FOLDS = 10
LEAST_TEXTS = 2 * _FOLDS
"""Fewer tell nothing that would hold for other texts."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One text's old and new score of the label that is decided on."""

    text: str
    old: float
    new: float


@dataclass(frozen=True, slots=True)
class Decisions:
    """How many decisions stay the same with a threshold on the new scores."""

    same: Share
    gained: int
    """Above the threshold now, and not before."""
    lost: int
    """Above the threshold before, and not now."""


@dataclass(frozen=True, slots=True)
class ThresholdAdvice:
    """What becomes of a threshold on old scores."""

    label: str
    old: float
    """A text is positive if its score is this or higher."""
    positives: Share
    """Decided so on the old scores."""
    unchanged: Decisions
    """With the old threshold on new scores. Nothing was fitted, so the interval holds."""
    cut: float
    """The threshold on new scores that keeps most decisions of these texts."""
    fitted: Decisions
    """With ``cut`` on the very texts that it was chosen on: too good by a little."""
    held_out: Share
    """The same on texts that a cut was not chosen on: ten parts, each judged by the cut of the other nine."""
    cuts: tuple[float, float]
    """The lowest and the highest of these ten cuts."""


def advise(label: str, old_threshold: float, scored: Sequence[Scored]) -> ThresholdAdvice:
    """Find the best cut.

    Args:
        label: for the report.
        old_threshold: between 0 and 1.
        scored: the texts; equal ones are always held out together.

    Raises:
        BulkError: there are too few texts, or all have the same old decision.
    """
    if len(scored) < LEAST_TEXTS:
        raise BulkError(f"a threshold needs at least {LEAST_TEXTS} texts that both sides answered")
    decided = [each.old >= old_threshold for each in scored]
    if len(set(decided)) == 1:
        side = "above" if decided[0] else "below"
        raise BulkError(
            f"all {len(scored)} texts are {side} {old_threshold:g} on the old scores of {label}, so nothing "
            "can be learned; add texts of the other kind"
        )
    new = [each.new for each in scored]
    cut = best_cut(new, decided, old_threshold)
    held_out, cuts = 0, []
    folds = [_fold(each.text) for each in scored]
    for fold in range(_FOLDS):
        rest = [place for place, of in enumerate(folds) if of != fold]
        if len(rest) == len(scored):
            continue  # nobody is in it
        fold_cut = best_cut([new[place] for place in rest], [decided[place] for place in rest], old_threshold)
        cuts.append(fold_cut)
        held_out += sum(
            (score >= fold_cut) == was
            for score, was, of in zip(new, decided, folds, strict=True)
            if of == fold
        )
    return ThresholdAdvice(
        label,
        old_threshold,
        Share(sum(decided), len(decided)),
        _decisions(new, decided, old_threshold),
        cut,
        _decisions(new, decided, cut),
        Share(held_out, len(scored)),
        (min(cuts), max(cuts)),
    )


def best_cut(scores: Sequence[float], decided: Sequence[bool], preferred: float) -> float:
    """Return the threshold on ``scores`` that repeats most decisions.

    Args:
        scores: at least one.
        decided: for each score, whether it should be the threshold or higher.
        preferred: taken if no other repeats more; else, of equally good ones, the middle of the widest gap
            between two scores, with as few digits as tell it from both.
    """
    ordered = sorted(zip(scores, decided, strict=True))
    same = sum(decided)  # a threshold below all scores
    best, gaps = same, [(min(0.0, ordered[0][0]), ordered[0][0])]
    for place, (score, was) in enumerate(ordered):
        same += -1 if was else 1
        above = ordered[place + 1][0] if place + 1 < len(ordered) else max(1.0, score) + 0.01
        if above == score or same < best:
            continue
        if same > best:
            best, gaps = same, []
        gaps.append((score, above))
    if _repeated(scores, decided, preferred) == best:
        return preferred
    return _between(*max(gaps, key=lambda gap: gap[1] - gap[0]))


def _between(low: float, high: float) -> float:
    """Return a short number above ``low`` and not above ``high``."""
    middle = (low + high) / 2
    for digits in range(2, 17):
        short = round(middle, digits)
        if low < short <= high:
            return short
    return high


def _repeated(scores: Sequence[float], decided: Sequence[bool], cut: float) -> int:
    return sum((score >= cut) == was for score, was in zip(scores, decided, strict=True))


def _decisions(scores: Sequence[float], decided: Sequence[bool], cut: float) -> Decisions:
    gained = sum(score >= cut and not was for score, was in zip(scores, decided, strict=True))
    lost = sum(score < cut and was for score, was in zip(scores, decided, strict=True))
    return Decisions(Share(len(scores) - gained - lost, len(scores)), gained, lost)


def _fold(text: str) -> int:
    """Put a text into one of the folds, the same in every run."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % _FOLDS
