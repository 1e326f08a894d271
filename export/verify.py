"""Compare every artefact, reloaded from disk, with a reference before anything is published.

FP32 is held against the numpy reference; FP16 and INT8 against FP32; and all of them
against themselves in padded batches, because an answer must not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.artefact import Artefact, Logits
from export.checkpoint import Checkpoint
from export.errors import VerificationError
from export.reference import logits as reference_logits
from export.scores import probabilities

REFERENCE_TEXTS = 12  # the numpy reference is slow
INVARIANCE = 1e-4  # largest |Δp| of a text between alone and padded
TIE = 0.05  # texts whose two best labels are nearer than this have no label to agree on


@dataclass(frozen=True)
class Bounds:
    """What a precision may differ by: mean and 99th percentile of |Δp|, and the least agreement."""

    mean_shift: float
    p99_shift: float
    agreement: float


BOUNDS = {
    "fp32": Bounds(1e-4, 1e-3, 1.0),
    "fp16": Bounds(1e-3, 1e-2, 0.995),
    "int8": Bounds(2e-2, 2e-1, 0.97),
}


@dataclass(frozen=True)
class Comparison:
    """How far an artefact is from its reference, in probabilities; agreement leaves ties out."""

    texts: int
    mean_shift: float
    p99_shift: float
    largest_shift: float
    agreement: float
    largest_padding_shift: float


def verify(
    precision: str,
    artefact: Artefact,
    rows: Sequence[Sequence[int]],
    checkpoint: Checkpoint,
    expected: Logits | None,
) -> tuple[Comparison, Logits]:
    """Compare one artefact with its reference.

    Args:
        precision: ``fp32``, ``fp16`` or ``int8``; selects the bounds.
        artefact: the reloaded file.
        rows: token ids of texts of mixed lengths.
        checkpoint: weights for the numpy reference.
        expected: FP32 logits [N, labels]; None compares with the numpy reference.

    Returns:
        The comparison and the artefact's own logits, each text alone.

    Raises:
        VerificationError: a bound is exceeded; the message says which and by how much.
    """
    alone = artefact.alone(rows)
    if not np.isfinite(alone).all():
        raise VerificationError(f"{precision}: the logits are not all finite numbers.")
    if expected is None:
        step = max(1, len(rows) // REFERENCE_TEXTS)
        wanted = np.array(
            [reference_logits(checkpoint.encoder, list(row)) for row in rows[::step]], np.float32
        )
        found = alone[::step]
    else:
        wanted, found = expected, alone
    comparison = _compare(found, wanted, alone, artefact.mixed(rows), checkpoint.problem_type)
    _judge(precision, comparison)
    return comparison, alone


def _compare(found: Logits, wanted: Logits, alone: Logits, padded: Logits, problem_type: str) -> Comparison:
    shift = np.abs(probabilities(found, problem_type) - probabilities(wanted, problem_type))
    padding = np.abs(probabilities(padded, problem_type) - probabilities(alone, problem_type))
    same = (_labels(found, problem_type) == _labels(wanted, problem_type)).all(axis=-1)
    return Comparison(
        texts=len(found),
        mean_shift=float(shift.mean()),
        p99_shift=float(np.quantile(shift, 0.99)),
        largest_shift=float(shift.max()),
        agreement=float((same | _tied(wanted, problem_type)).mean()),
        largest_padding_shift=float(padding.max()),
    )


def _labels(logits: Logits, problem_type: str) -> npt.NDArray[np.bool_]:
    """[N, labels], True where a label is chosen."""
    if problem_type == "multi_label_classification":
        return logits > 0
    chosen: npt.NDArray[np.bool_] = np.eye(logits.shape[1], dtype=bool)[logits.argmax(axis=1)]
    return chosen


def _tied(logits: Logits, problem_type: str) -> npt.NDArray[np.bool_]:
    """[N], True where the reference itself can hardly choose."""
    scores = probabilities(logits, problem_type)
    if problem_type == "multi_label_classification":
        near: npt.NDArray[np.bool_] = (np.abs(scores - 0.5) < TIE / 2).any(axis=-1)
        return near
    ordered = np.sort(scores, axis=-1)
    tied: npt.NDArray[np.bool_] = ordered[:, -1] - ordered[:, -2] < TIE
    return tied


def _judge(precision: str, found: Comparison) -> None:
    bounds = BOUNDS[precision]
    checks = {
        f"mean |Δp| {found.mean_shift:.2e} > {bounds.mean_shift:g}": found.mean_shift > bounds.mean_shift,
        f"99th percentile of |Δp| {found.p99_shift:.2e} > {bounds.p99_shift:g}": found.p99_shift
        > bounds.p99_shift,
        f"agreement {found.agreement:.4f} < {bounds.agreement}": found.agreement < bounds.agreement,
        f"padding moves a score by {found.largest_padding_shift:.2e} > {INVARIANCE:g}": (
            found.largest_padding_shift > INVARIANCE
        ),
    }
    failed = [message for message, bad in checks.items() if bad]
    if failed:
        raise VerificationError(f"{precision}: " + "; ".join(failed) + ". Nothing was published.")
