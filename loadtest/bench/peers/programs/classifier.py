"""The served graph and tokenizer as the peers run them; imported by their programs alone, in their environments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

Answer = list[dict[str, object]]
"""``[{"label": …, "score": …}]``, in the order of the labels."""


class Classifier:
    """Scores of texts, one thread; ``PEER`` in the environment is a JSON object that describes the model.

    Its keys: ``model`` (None: a constant instead of the graph), ``tokenizer``, ``labels``, ``max_tokens``,
    ``group`` (most texts of a run).
    """

    def __init__(self) -> None:
        """Load what ``PEER`` names."""
        given = json.loads(os.environ["PEER"])
        self._labels: list[str] = given["labels"]
        self._group: int = given["group"]
        self._tokenizer = Tokenizer.from_file(given["tokenizer"])
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(given["max_tokens"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self._session = given["model"] and ort.InferenceSession(given["model"], options, providers)

    def classify(self, texts: Sequence[str]) -> list[Answer]:
        """Return the answers in order; texts of like length are computed together."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        logits = np.zeros((len(rows), len(self._labels)), np.float32)
        if self._session:
            for group in self._groups(rows):
                logits[group] = self._run([rows[place] for place in group])
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = (exponents / exponents.sum(axis=1, keepdims=True)).tolist()
        return [
            [{"label": label, "score": score} for label, score in zip(self._labels, row, strict=True)]
            for row in scores
        ]

    def _groups(self, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        for start in range(0, len(order), self._group):
            yield order[start : start + self._group]

    def _run(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for line, row in enumerate(rows):
            ids[line, : len(row)] = row
            mask[line, : len(row)] = 1
        (logits,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return logits
