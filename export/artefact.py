"""An ONNX file on disk, loaded the way it will be served, and asked about texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from export.errors import VerificationError

Logits = npt.NDArray[np.float32]
_SIGNATURE = {
    "input_ids": ("tensor(int64)", ["batch", "sequence"]),
    "attention_mask": ("tensor(int64)", ["batch", "sequence"]),
}


class Artefact:
    """A loaded ``model.onnx``; raises VerificationError if its inputs or output are not the agreed ones."""

    def __init__(self, path: Path, labels: int) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = {i.name: (i.type, i.shape) for i in self._session.get_inputs()}
        output = [(o.name, o.type, o.shape) for o in self._session.get_outputs()]
        if found != _SIGNATURE or output != [("logits", "tensor(float)", ["batch", labels])]:
            raise VerificationError(f"{path.name} has inputs {found} and outputs {output}.")

    def padded(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Logits [B, labels] of token ids padded into one batch."""
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros_like(ids)
        for line, row in enumerate(rows):
            ids[line, : len(row)] = row
            mask[line, : len(row)] = 1
        (logits,) = self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        return np.asarray(logits, np.float32)

    def alone(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Logits [N, labels], every text in a run of its own."""
        return np.concatenate([self.padded([row]) for row in rows])

    def mixed(self, rows: Sequence[Sequence[int]], sizes: Sequence[int] = (2, 3, 8, 17)) -> Logits:
        """Logits [N, labels] from padded batches of changing size and mixed lengths."""
        return np.concatenate([self.padded(part) for part in _chunks(rows, sizes)])


def _chunks(rows: Sequence[Sequence[int]], sizes: Sequence[int]) -> Iterator[Sequence[Sequence[int]]]:
    start = turn = 0
    while start < len(rows):
        size = sizes[turn % len(sizes)]
        yield rows[start : start + size]
        start += size
        turn += 1
