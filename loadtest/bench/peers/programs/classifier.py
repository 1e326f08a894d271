"""The served graph and tokenizer, as a user of ONNX Runtime runs them in a server of their own.

The programs beside it import it, in the environments of the peers; nothing else does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

Answer = list[dict[str, Any]]
"""``[{"label": str, "score": float 0…1}, …]``, in the order of the labels."""


def given() -> Mapping[str, Any]:
    """What the environment variable ``PEER``, a JSON object, says about the model and the server."""
    described: Mapping[str, Any] = json.loads(os.environ["PEER"])
    return described


class Classifier:
    """Scores of texts, computed by the calling thread alone.

    ``PEER`` names ``model`` (a file; null: zeros for logits), ``tokenizer`` (a file), ``labels`` and
    ``max_tokens``. It may set ``group``, the most texts of a run (1 without it), and ``padding``, the most
    tokens by which the longest text of a run exceeds the shortest.
    """

    def __init__(self) -> None:
        """Load the files."""
        peer = given()
        self._labels: list[str] = peer["labels"]
        self._group: int = peer.get("group", 1)
        self._padding: int = peer.get("padding", 0)
        self._tokenizer = Tokenizer.from_file(peer["tokenizer"])
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(peer["max_tokens"])
        options = ort.SessionOptions()
        # A process a core: a second thread would take another process's core.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self._session = peer["model"] and ort.InferenceSession(peer["model"], options, providers)

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
        """Places of the shortest texts first, those of like length together."""
        group: list[int] = []
        for place in sorted(range(len(rows)), key=lambda place: len(rows[place])):
            longest = len(rows[group[0]]) + self._padding if group else 0
            if group and (len(group) == self._group or len(rows[place]) > longest):
                yield group
                group = []
            group.append(place)
        yield group

    def _run(self, rows: Sequence[Sequence[int]]) -> Any:
        """Logits FP32 [n, labels] of n texts, padded to the longest."""
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for line, row in enumerate(rows):
            ids[line, : len(row)] = row
            mask[line, : len(row)] = 1
        (logits,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return logits
