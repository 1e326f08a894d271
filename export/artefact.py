"""An ONNX file on disk, loaded the way it will be served, and asked about texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from export.errors import VerificationError

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
_SIGNATURE = {
    "input_ids": ("tensor(int64)", ["batch", "sequence"]),
    "attention_mask": ("tensor(int64)", ["batch", "sequence"]),
}


def pad(rows: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """Token ids of B texts as one batch: ids and mask INT64 [B, longest], zeros where a text has ended."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
        mask[line, : len(row)] = 1
    return ids, mask


class Artefact:
    """A loaded ``model.onnx``; raises VerificationError if its inputs or output are not the agreed ones.

    ``model`` is a file, or the bytes of one; ``threads`` is how many cores one run may use, and 0
    leaves the choice to ONNX Runtime.
    """

    def __init__(self, model: Path | bytes, labels: int, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        content = model if isinstance(model, bytes) else str(model)
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found = {i.name: (i.type, i.shape) for i in self._session.get_inputs()}
        output = [(o.name, o.type, o.shape) for o in self._session.get_outputs()]
        if found != _SIGNATURE or output != [("logits", "tensor(float)", ["batch", labels])]:
            raise VerificationError(f"the graph has inputs {found} and outputs {output}.")

    def run(self, ids: Ids, mask: Ids) -> Logits:
        """Logits [B, labels] of ids and mask INT64 [B, S]."""
        (logits,) = self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        return np.asarray(logits, np.float32)

    def padded(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Logits [B, labels] of token ids padded into one batch."""
        return self.run(*pad(rows))

    def alone(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Logits [N, labels], every text in a run of its own."""
        return np.concatenate([self.padded([row]) for row in rows])
