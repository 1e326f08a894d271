"""May a plan be served: is it as accurate as the FP32 model that was exported, and how fast."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from plans.kit import Batch, Limits

Logits = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Verdict:
    """What was found on the kit's sentences; ``failed`` is the reason why the plan may not be served.

    Agreement counts every sentence, near ties included; of a reranker, see `same_order`. Accuracies are
    fractions, and None where the sentences carry no labels.
    """

    texts: int
    agreement: float
    accuracy: float | None
    reference_accuracy: float | None
    failed: tuple[str, ...]


def chosen(logits: Sequence[float], problem_type: str) -> tuple[int, ...]:
    """Indices of the labels that these logits choose."""
    if problem_type == "multi_label_classification":
        return tuple(index for index, value in enumerate(logits) if value > 0)
    return (max(range(len(logits)), key=logits.__getitem__),)


def judge(found: Sequence[Logits], batches: Sequence[Batch], problem_type: str, limits: Limits) -> Verdict:
    """Compare a plan's logits, one [rows, labels] per batch, with the reference of each batch."""
    if any(_shape(logits) != _shape(batch.logits) for logits, batch in zip(found, batches, strict=True)):
        return Verdict(0, 0.0, None, None, ("the plan answers in another shape than the FP32 model",))
    texts = same = labelled = right = reference_right = 0
    for logits, batch in zip(found, batches, strict=True):
        answers = [chosen(row, problem_type) for row in logits]
        wanted = [chosen(row, problem_type) for row in batch.logits]
        texts += len(answers)
        same += sum(map(tuple.__eq__, answers, wanted))
        labelled += len(batch.labels)
        # zip stops at the labels, which are none in a batch without.
        right += sum(answer == label for answer, label in zip(answers, batch.labels, strict=False))
        reference_right += sum(answer == label for answer, label in zip(wanted, batch.labels, strict=False))
    said = "it agrees with FP32 on {:.2%} of {} texts, {:.2%} are needed"
    agreement = same / texts
    if all(len(row) == 1 for batch in batches for row in batch.logits):
        said = "it orders {:.2%} of all pairs of {} texts as FP32 does, {:.2%} are needed"
        agreement = same_order(
            [row[0] for batch in batches for row in batch.logits],
            [row[0] for logits in found for row in logits],
        )
    accuracy = right / labelled if labelled else None
    reference = reference_right / labelled if labelled else None
    failed = []
    if not _is_finite(found):
        failed.append("its logits are not all finite numbers")
    if agreement < limits.agreement:
        failed.append(said.format(agreement, texts, limits.agreement))
    # Half a millionth: so that a drop of exactly the limit passes under any rounding.
    if accuracy is not None and reference is not None and reference - accuracy > limits.accuracy_drop + 5e-7:
        failed.append(
            f"its accuracy is {100 * (reference - accuracy):.2f} points below FP32's, "
            f"{100 * limits.accuracy_drop:.2f} are allowed"
        )
    return Verdict(texts, agreement, accuracy, reference, tuple(failed))


def same_order(wanted: Sequence[float], found: Sequence[float]) -> float:
    """Share of all pairs of texts that ``wanted`` orders and that ``found`` puts in the same order.

    That is what a reranker's only logit is for; its sign is the same for most texts. Texts that are tied in
    ``found`` alone count as not in order. 1 where ``wanted`` orders nothing.
    """
    lower: list[float] = []
    pairs = in_order = 0
    for _, tied in groupby(sorted(zip(wanted, found, strict=True)), key=lambda text: text[0]):
        values = [value for _, value in tied]
        pairs += len(values) * len(lower)
        in_order += sum(bisect_left(lower, value) for value in values)
        for value in values:
            insort(lower, value)
    return in_order / pairs if pairs else 1.0


def _shape(logits: Logits) -> list[int]:
    return [len(row) for row in logits]


def _is_finite(found: Sequence[Logits]) -> bool:
    return all(math.isfinite(value) for logits in found for row in logits for value in row)


def texts_per_second(median_ms: Sequence[float], batches: Sequence[Batch]) -> float:
    """Throughput on the length mix: median GPU time per run of each timed batch, weighed by its share."""
    whole = sum(batch.share for batch in batches)
    pairs = zip(median_ms, batches, strict=True)
    seconds = sum(batch.share / whole * ms / 1000 / batch.shape[0] for ms, batch in pairs)
    return 1 / seconds
