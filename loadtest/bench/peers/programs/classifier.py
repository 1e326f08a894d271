"""Scores of texts; see onnx_model.py for what is served and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx_model import OnnxModel

Answer = list[dict[str, Any]]
"""``[{"label": str, "score": float 0…1}, …]``, in the order of the labels."""


class Classifier:
    """A model with two or more labels."""

    def __init__(self) -> None:
        """Load the files that ``PEER`` names."""
        self._model = OnnxModel()
        self._model.tokenizer.enable_truncation(self._model.max_tokens)

    def classify(self, texts: Sequence[str]) -> list[Answer]:
        """Return the answers in order."""
        logits = self._model.logits(self._model.tokenizer.encode_batch_fast(list(texts)))
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = (exponents / exponents.sum(axis=1, keepdims=True)).tolist()
        return [
            [{"label": label, "score": score} for label, score in zip(self._model.labels, row, strict=True)]
            for row in scores
        ]
