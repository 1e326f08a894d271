"""An ONNX file on disk, loaded the way it will be served, and asked about texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from export.errors import VerificationError
from export.rows import Ids, pad, pad_types
from export.spec import ENCODER_INPUTS, TYPE_IDS

Logits = npt.NDArray[np.float32]
_TENSOR = ("tensor(int64)", ["batch", "sequence"])
_SIGNATURE = dict.fromkeys(ENCODER_INPUTS, _TENSOR)


class Artefact:
    """A loaded ``model.onnx``; raises VerificationError if its inputs or output are not the agreed ones.

    Token types are an input of graphs that read them.
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
        self._reads_types = TYPE_IDS in found
        agreed = _SIGNATURE | dict.fromkeys([TYPE_IDS] * self._reads_types, _TENSOR)
        if found != agreed or output != [("logits", "tensor(float)", ["batch", labels])]:
            raise VerificationError(f"the graph has inputs {found} and outputs {output}.")

    def run(self, ids: Ids, mask: Ids, types: Ids | None = None) -> Logits:
        """Logits [B, labels] of ids, mask and types INT64 [B, S]; without types all are 0."""
        tensors = {"input_ids": ids, "attention_mask": mask}
        if self._reads_types:
            tensors[TYPE_IDS] = np.zeros_like(ids) if types is None else types
        (logits,) = self._session.run(["logits"], tensors)
        return np.asarray(logits, np.float32)

    def padded(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Logits [B, labels] of token ids padded into one batch."""
        return self.run(*pad(rows), pad_types(rows))

    def alone(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Logits [N, labels], every text in a run of its own."""
        return np.concatenate([self.padded([row]) for row in rows])
