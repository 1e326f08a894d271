"""Logits to probabilities, in float64, for comparisons (the gateway has its own, without numpy)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def probabilities(logits: npt.NDArray[np.float32], problem_type: str) -> npt.NDArray[np.float64]:
    """Softmax over the last axis [..., labels], or an independent sigmoid for multi-label heads."""
    wide = logits.astype(np.float64)
    if problem_type == "multi_label_classification":
        independent: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-wide))
        return independent
    e: npt.NDArray[np.float64] = np.exp(wide - wide.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e
