"""What a comparison shows: agreement, differing labels, shift of scores, latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bulk.compare.answers import Answers, Pair, Side, SideAnswer
from bulk.compare.statistics import Share, percentile
from bulk.compare.threshold import Scored, ThresholdAdvice, advise
from bulk.errors import BulkError

_BOUNDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper ends of the groups of shifts; those above 0.5 are other opinions."""


@dataclass(frozen=True, slots=True)
class SideFigures:
    """One server's part."""

    side: Side
    versions: tuple[str, ...]
    """Of the model, as far as the server tells them."""
    answered: int
    failed: dict[str, int]
    """How many texts have no answer, by reason."""
    truncated: int
    """Texts of which the model read the beginning only."""
    p50_ms: float | None
    p95_ms: float | None
    """Latencies; None where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A text with different best labels."""

    row: int
    text: str
    a_label: str
    a_score: float
    b_label: str
    b_score: float

    @property
    def weight(self) -> float:
        """Higher where both sides are surer."""
        return min(self.a_score, self.b_score)


@dataclass(frozen=True, slots=True)
class Shift:
    """How the score of a label moves: B's minus A's."""

    label: str
    texts: int
    mean: float
    p5: float
    p50: float
    p95: float
    largest: float
    """The one that is furthest from 0."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that a report shows."""

    sides: tuple[SideFigures, SideFigures]
    texts: int
    """Different ones."""
    repeated: int
    empty: int
    compared: int
    """Texts that both sides answered."""
    same: Share | None
    """Texts with the same best label; None if a side has scores of one label alone."""
    differences: tuple[Difference, ...]
    """Those on which both sides are surest first."""
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    """Labels that the other side does not have."""
    shifts: tuple[Shift, ...]
    sizes: tuple[tuple[float, int], ...]
    """How many texts have a largest shift, of any label, up to each bound and above the one before."""
    threshold: ThresholdAdvice | None


def compute(answers: Answers, label: str | None = None, old_threshold: float | None = None) -> Figures:
    """Compute the figures.

    Args:
        answers: of both sides.
        label: the one whose scores are judged by a threshold; None takes ``POSITIVE``, or the last of two.
        old_threshold: on the scores of side A; None leaves the threshold out.

    Raises:
        BulkError: the threshold cannot be judged; see `advise`.
    """
    pairs = [pair for pair in answers.pairs if pair.is_answered]
    labels_a, labels_b = _labels(pair.a for pair in pairs), _labels(pair.b for pair in pairs)
    common = [name for name in labels_a if name in labels_b]
    has_best = len(labels_a) > 1 and len(labels_b) > 1
    return Figures(
        sides=(
            _side(answers.sides[0], [pair.a for pair in answers.pairs]),
            _side(answers.sides[1], [pair.b for pair in answers.pairs]),
        ),
        texts=len(answers.pairs),
        repeated=answers.repeated,
        empty=answers.empty,
        compared=len(pairs),
        same=Share(sum(p.a.best[0] == p.b.best[0] for p in pairs), len(pairs)) if has_best else None,
        differences=_differences(pairs) if has_best else (),
        only_a=tuple(name for name in labels_a if name not in labels_b) if has_best else (),
        only_b=tuple(name for name in labels_b if name not in labels_a) if has_best else (),
        # Of two labels one says all: the scores add up to 1.
        shifts=tuple(
            _shift(name, pairs) for name in (common[1:] if len(labels_b) == 2 == len(common) else common)
        ),
        sizes=_sizes(pairs, common),
        threshold=None if old_threshold is None else _threshold(pairs, common, label, old_threshold),
    )


def _labels(answers: Iterable[SideAnswer]) -> list[str]:
    """Return the labels of all answers, each once, in their order."""
    return list(dict.fromkeys(name for answer in answers for name in answer.labels))


def _side(side: Side, answers: Sequence[SideAnswer]) -> SideFigures:
    times = sorted(answer.seconds for answer in answers if answer.labels and answer.seconds)
    return SideFigures(
        side,
        versions=tuple(sorted({answer.version for answer in answers if answer.version})),
        answered=sum(bool(answer.labels) for answer in answers),
        failed=dict(Counter(answer.error for answer in answers if answer.error).most_common()),
        truncated=sum(answer.truncated for answer in answers),
        p50_ms=percentile(times, 0.5) * 1000 if times else None,
        p95_ms=percentile(times, 0.95) * 1000 if times else None,
    )


def _differences(pairs: Sequence[Pair]) -> tuple[Difference, ...]:
    found = [
        Difference(pair.row, pair.text, *pair.a.best, *pair.b.best)
        for pair in pairs
        if pair.a.best[0] != pair.b.best[0]
    ]
    return tuple(sorted(found, key=lambda each: (-each.weight, each.row)))


def _shift(label: str, pairs: Sequence[Pair]) -> Shift:
    moved = sorted(_moved(label, pairs))
    return Shift(
        label,
        len(moved),
        sum(moved) / len(moved),
        percentile(moved, 0.05),
        percentile(moved, 0.5),
        percentile(moved, 0.95),
        max(moved, key=abs),
    )


def _moved(label: str, pairs: Sequence[Pair]) -> list[float]:
    both = ((pair.a.score_of(label), pair.b.score_of(label)) for pair in pairs)
    return [new - old for old, new in both if old is not None and new is not None]


def _sizes(pairs: Sequence[Pair], labels: Sequence[str]) -> tuple[tuple[float, int], ...]:
    counts = dict.fromkeys(_BOUNDS, 0)
    for pair in pairs:
        moved = [abs(size) for label in labels for size in _moved(label, [pair])]
        if moved:
            counts[next(bound for bound in _BOUNDS if max(moved) <= bound or bound == _BOUNDS[-1])] += 1
    return tuple(counts.items())


def _threshold(
    pairs: Sequence[Pair], labels: Sequence[str], chosen: str | None, old_threshold: float
) -> ThresholdAdvice:
    label = chosen
    if label is None:
        label = "POSITIVE" if "POSITIVE" in labels else labels[-1] if 1 <= len(labels) <= 2 else None
    if label is None or label not in labels:
        known = ", ".join(labels) or "none"
        raise BulkError(f"name the label that the threshold is for with --label; both sides have: {known}")
    scored = [
        Scored(pair.text, old, new)
        for pair in pairs
        if (old := pair.a.score_of(label)) is not None and (new := pair.b.score_of(label)) is not None
    ]
    return advise(label, old_threshold, scored)
