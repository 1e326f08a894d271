"""Which artefacts may be published: limits, and one finding for each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from export.errors import VerificationError

if TYPE_CHECKING:  # the limits are part of a plan, which must load without ONNX Runtime
    from export.evaluation.doubts import Doubt
    from export.evaluation.evaluate import Evaluation, Measurement
    from export.evaluation.ranking import Ranking

SHOWN_FLIPS = 5
SHOWN_CHARACTERS = 80
SIGN = "sign: "
"""Begins the check of what `export.evaluation.doubts` found."""
MINIMUM = "minimum "
"""Begins the check of a limit that counts by itself, not against the reference."""


@dataclass(frozen=True)
class GateLimits:
    """What a precision may differ by from the reference.

    accuracy_drop: percentage points. agreement: least share of texts with the same labels, ties
    included. neighbours: largest |Δp| of a text between alone and in any batch. p99_shift: 99th
    percentile of |Δp|, judged only where there are no labels to judge accuracy by.

    Of a reranker, accuracy_drop is of MRR@10, in points of 100, and p99_shift is always judged. Instead of
    agreement, kendall_tau is the least mean of Kendall's tau-b with the reference's order, and top the
    least share of queries with the reference's first text.
    """

    accuracy_drop: float
    agreement: float
    neighbours: float
    p99_shift: float
    kendall_tau: float
    top: float


DEFAULT_LIMITS: Mapping[str, GateLimits] = {
    "fp32": GateLimits(
        accuracy_drop=0.1, agreement=0.999, neighbours=1e-4, p99_shift=1e-3, kendall_tau=0.999, top=0.999
    ),
    # Adding in another order can move an FP16 activation by a whole step, and a score by some 1e-4.
    "fp16": GateLimits(
        accuracy_drop=0.2, agreement=0.998, neighbours=1e-3, p99_shift=1e-2, kendall_tau=0.98, top=0.98
    ),
    "int8": GateLimits(
        accuracy_drop=0.5, agreement=0.985, neighbours=1e-4, p99_shift=0.2, kendall_tau=0.9, top=0.9
    ),
}


@dataclass(frozen=True)
class Finding:
    """One check of one artefact; ``found`` and ``allowed`` are value and limit in words."""

    artefact: str
    check: str
    value: float
    limit: float
    passed: bool
    found: str
    allowed: str


def judge(
    evaluation: Evaluation,
    limits: Mapping[str, GateLimits] = DEFAULT_LIMITS,
    names: Collection[str] | None = None,
) -> list[Finding]:
    """Hold artefacts against the limits of their precision.

    Args:
        evaluation: what was measured.
        limits: by precision; one must be there for every precision that is judged.
        names: the artefacts to judge; None judges all.

    Returns:
        Every check, passed or not, in the order of the artefacts.
    """
    findings = []
    for name, found in evaluation.measurements.items():
        if names is None or name in names:
            findings += _judge(name, found, evaluation, limits[found.precision])
    return findings


def judge_quality(
    evaluation: Evaluation,
    signs: Mapping[str, Sequence[Doubt]],
    min_accuracy: float | None = None,
    min_f1: float | None = None,
) -> list[Finding]:
    """Judge what artefacts are worth by themselves, on texts with labels.

    Args:
        evaluation: what was measured.
        signs: what stops the publication of each artefact.
        min_accuracy: least share of the texts, 0…1; None sets no limit.
        min_f1: least mean F1 of the labels, 0…1. Both are held against what was measured, however few the
            texts are.

    Returns:
        One finding for each limit that was set and each sign.
    """
    findings = []
    for name, found in evaluation.measurements.items():
        for sign in signs.get(name, ()):
            said = sign.found.removesuffix(".")
            findings.append(Finding(name, SIGN + sign.check, 1.0, 0.0, False, said, "no such sign"))
        right, labels = found.accuracy, found.quality
        if min_accuracy is not None and right is not None:
            said = f"accuracy {100 * right.share:.2f} % of {right.texts:,} texts"
            said += f" (95 % interval {100 * right.low:.1f}–{100 * right.high:.1f})"
            findings.append(_at_least(name, "accuracy", right.share, min_accuracy, said))
        if min_f1 is not None and labels is not None:
            said = f"mean F1 of the labels {100 * labels.macro_f1:.2f} %"
            findings.append(_at_least(name, "F1", labels.macro_f1, min_f1, said))
    return findings


def _at_least(name: str, what: str, value: float, limit: float, said: str) -> Finding:
    return Finding(name, MINIMUM + what, value, limit, value >= limit, said, f"at least {100 * limit:g} %")


def _judge(name: str, found: Measurement, evaluation: Evaluation, limits: GateLimits) -> list[Finding]:
    if found.ranking is not None:
        return _judge_reranker(name, found, found.ranking, evaluation, limits)
    same, texts = found.agreement, found.agreement.texts
    flips = sum(each.flips for each in found.invariance.tried)
    at_least = f"at least {100 * limits.agreement:g} %"
    agreed = f"agreement {100 * same.share:.2f} % with {evaluation.reference}"
    agreed += f", {texts - same.same} of {texts} flipped"
    return [
        _finite(name, found),
        _accuracy_or_shift(name, found, evaluation, limits),
        Finding(
            name, "agreement", same.share, limits.agreement, same.share >= limits.agreement, agreed, at_least
        ),
        _neighbours(name, found, limits),
        _at_most(name, "neighbour flips", flips, 0, f"{flips} labels changed by neighbours", "none"),
    ]


def _judge_reranker(
    name: str, found: Measurement, ranking: Ranking, evaluation: Evaluation, limits: GateLimits
) -> list[Finding]:
    reference, tau, queries = evaluation.reference, ranking.kendall_tau, ranking.queries
    said = f"Kendall's tau {tau:.4f} with {reference}"
    top = f"{ranking.same_top} of {queries} queries have {reference}'s first text"
    least = f"at least {100 * limits.top:g} %"
    return [
        _finite(name, found),
        *_relevance_drop(name, ranking, evaluation, limits),
        _p99_shift(name, found, limits),
        Finding(
            name, "kendall tau", tau, limits.kendall_tau, tau >= limits.kendall_tau, said,
            f"at least {limits.kendall_tau:g}",
        ),
        Finding(name, "top text", ranking.top_share, limits.top, ranking.top_share >= limits.top, top, least),
        _neighbours(name, found, limits),
    ]  # fmt: skip


def _relevance_drop(name: str, ranking: Ranking, evaluation: Evaluation, limits: GateLimits) -> list[Finding]:
    expected = evaluation.measurements[evaluation.reference].ranking
    if ranking.relevance is None or expected is None or expected.relevance is None:
        return []
    drop = 100 * (expected.relevance.mrr - ranking.relevance.mrr)
    said = (
        f"MRR@10 {100 * ranking.relevance.mrr:.2f}, {0.0 - drop:+.2f} points against {evaluation.reference}"
    )
    return [
        _at_most(
            name,
            "MRR drop",
            drop,
            limits.accuracy_drop,
            said,
            f"at most {limits.accuracy_drop:g} points less",
        )
    ]


def _finite(name: str, found: Measurement) -> Finding:
    undefined, texts = int((~found.answers.finite).sum()), found.agreement.texts
    return _at_most(
        name, "finite", undefined, 0, f"{undefined} of {texts} texts without finite scores", "none"
    )


def _neighbours(name: str, found: Measurement, limits: GateLimits) -> Finding:
    moved = found.invariance.largest_shift
    return _at_most(name, "neighbours", moved, limits.neighbours, f"neighbours move a score by {moved:.1e}")


def _p99_shift(name: str, found: Measurement, limits: GateLimits) -> Finding:
    shift = found.agreement.p99_shift
    return _at_most(name, "p99 shift", shift, limits.p99_shift, f"99th percentile of |Δp| {shift:.1e}")


def _accuracy_or_shift(name: str, found: Measurement, evaluation: Evaluation, limits: GateLimits) -> Finding:
    expected = evaluation.measurements[evaluation.reference].accuracy
    if found.accuracy is None or expected is None:
        return _p99_shift(name, found, limits)
    # From counts: a difference of two rounded shares could miss the limit by the last bit.
    drop = 100 * (expected.correct - found.accuracy.correct) / found.accuracy.texts
    said = f"accuracy {100 * found.accuracy.share:.2f} %"
    said += f", {0.0 - drop:+.2f} points against {evaluation.reference}"
    allowed = f"at most {limits.accuracy_drop:g} points less"
    return _at_most(name, "accuracy drop", drop, limits.accuracy_drop, said, allowed)


def _at_most(
    name: str, check: str, value: float, limit: float, found: str, allowed: str | None = None
) -> Finding:
    return Finding(name, check, value, limit, value <= limit, found, allowed or f"at most {limit:g}")


def require(evaluation: Evaluation, findings: Sequence[Finding], advice: Sequence[str] = ()) -> None:
    """Go on only if every check passed.

    Args:
        evaluation: what was measured.
        findings: the gate's findings about the artefact that is to be published.
        advice: lines for the end of the message.

    Raises:
        VerificationError: the message names the checks that failed, by how much, and the texts that flipped.
    """
    failed = [finding for finding in findings if not finding.passed]
    if not failed:
        return
    lines = []
    for name in dict.fromkeys(finding.artefact for finding in failed):
        own = [finding for finding in failed if finding.artefact == name]
        signs = [each for each in own if each.check.startswith(SIGN)]
        others = [each for each in own if each not in signs]
        lines += [f"{name} fails the gate: {each.found}." for each in signs]
        if others:
            said = "; ".join(f"{each.found} (allowed: {each.allowed})" for each in others)
            lines += [f"{name} fails the gate: {said}.", *_flipped_lines(evaluation, name, others)]
    raise VerificationError(
        "\n".join(
            [
                *lines,
                "Nothing was published; report.html beside the artefacts shows more, and report.json lists "
                "every flipped text.",
                *advice,
            ]
        )
    )


def _flipped_lines(evaluation: Evaluation, name: str, failed: Sequence[Finding]) -> list[str]:
    found = evaluation.measurements[name]
    checks = {each.check for each in failed if not each.check.startswith(MINIMUM)}
    lines = []
    if checks - {"neighbours", "neighbour flips"}:
        title = "flipped against" if found.ranking is None else "first for a query, other than with"
        lines += _listed(f"{title} {evaluation.reference}", found.flipped, evaluation)
    if "neighbour flips" in checks:
        lines += _listed("changed by neighbours", found.invariance.flipped, evaluation)
    return lines


def _listed(title: str, indices: Sequence[int], evaluation: Evaluation) -> list[str]:
    if not indices:
        return []
    # Their repr: a text may hold what a terminal would obey.
    lines = [f"  {_shorten(evaluation.examples.texts[index])!r}" for index in indices[:SHOWN_FLIPS]]
    if len(indices) > SHOWN_FLIPS:
        lines.append(f"  … and {len(indices) - SHOWN_FLIPS} more")
    return [f" {title}:", *lines]


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
