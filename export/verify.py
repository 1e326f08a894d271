"""Hold the FP32 graph, reloaded from disk, against a reference that was computed without it.

It is the proof that the graph is right; all other artefacts are then compared with it
(export.evaluation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.artefact import Artefact
from export.errors import CheckpointError, VerificationError
from export.evaluation.invariance import pick_evenly
from export.evaluation.metrics import answers, shifts
from export.route import ExportRoute

TEXTS = 12  # the numpy reference is slow
LARGEST_SHIFT = 1e-4


def verify_fp32(
    artefact: Artefact, rows: Sequence[Sequence[int]], route: ExportRoute, problem_type: str
) -> float:
    """Largest |Δp| between the artefact and the reference, on a dozen texts of all lengths.

    Args:
        artefact: the reloaded FP32 file.
        rows: token ids of texts of mixed lengths, the longest allowed among them.
        route: where the graph came from; gives the reference.
        problem_type: how logits become scores.

    Raises:
        CheckpointError: the reference itself is not finite, so no graph can be.
        VerificationError: they differ by more than arithmetic explains, or are not finite.
    """
    picked = [rows[index] for index in pick_evenly([len(row) for row in rows], TEXTS)]
    wanted = route.reference(picked).astype(np.float32)
    if not np.isfinite(wanted).all():
        raise CheckpointError(
            "what the checkpoint computes is too large for FP32 (its scores are not finite); "
            "train it again, or take a checkpoint from before its weights grew. Nothing was published."
        )
    found = answers(artefact.alone(picked), problem_type)
    shift = float(shifts(found.scores, answers(wanted, problem_type).scores).max())
    if not found.finite.all() or shift > LARGEST_SHIFT:
        raise VerificationError(
            f"fp32: the graph's scores differ from the reference's by {shift:.1e}, more than "
            f"{LARGEST_SHIFT:g}; this is a defect of the exporter. Nothing was published."
        )
    return shift
