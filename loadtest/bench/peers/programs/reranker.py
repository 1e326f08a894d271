"""Scores of contexts for a query; see onnx_model.py for what is served and how."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx_model import OnnxModel

Pair = tuple[str, str]
"""A query, and a context that is scored for it."""
Scores = dict[str, list[float]]
"""``{"scores": [float 0…1, …]}``, in the order of the contexts."""


class Reranker:
    """A model with one label."""

    def __init__(self) -> None:
        """Load the files that ``PEER`` names."""
        self._model = OnnxModel()
        self._model.tokenizer.enable_truncation(self._model.max_tokens, strategy="only_second")

    def score(self, query: str, contexts: Sequence[str]) -> Scores:
        """Return the scores of the contexts of one request."""
        return self.score_all([(query, contexts)])[0]

    def score_all(self, requests: Sequence[tuple[str, Sequence[str]]]) -> list[Scores]:
        """Return the scores of several requests, whose pairs are sorted by length together."""
        pairs: list[Pair] = [(query, context) for query, contexts in requests for context in contexts]
        logits = self._model.logits(self._model.tokenizer.encode_batch_fast(pairs))[:, 0]
        scores = iter((1 / (1 + np.exp(-logits.astype(np.float64)))).tolist())
        return [{"scores": [next(scores) for _ in contexts]} for _, contexts in requests]
