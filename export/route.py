"""Two ways from a checkpoint to a graph, behind one face: written by us, or exported by torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx

from export.checkpoint.model import Checkpoint, Encoder
from export.graph.encoder import build_graph
from export.reference import logits
from export.rows import types_of
from export.torch_route import TorchRoute


class ExportRoute(Protocol):
    """Graphs of one checkpoint, and what their answers are compared with.

    Every graph takes input_ids and attention_mask INT64 [B, S] and gives logits FP32 [B, labels]. Those of
    a checkpoint that reads token types also take token_type_ids INT64 [B, S].
    """

    def fp32_graph(self, flavour: str) -> onnx.ModelProto:
        """FP32 in a flavour of export.graph.encoder.FLAVOURS; raises ExportError."""

    def fp16_graph(self, flavour: str) -> onnx.ModelProto:
        """The same with FP16 weights and activations; raises ExportError."""

    def reference(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """Logits [N, labels] of token ids, each text alone, computed without the graph."""


def route_of(checkpoint: Checkpoint) -> ExportRoute:
    """Our own writer where the checkpoint was read for it, else torch."""
    if checkpoint.weights is None:
        return TorchRoute(checkpoint)
    return WrittenRoute(checkpoint.weights)


class WrittenRoute:
    """Graphs written straight from the weights, compared with the numpy reference."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def fp32_graph(self, flavour: str) -> onnx.ModelProto:
        """See ExportRoute."""
        return build_graph(self._encoder, "fp32", flavour)

    def fp16_graph(self, flavour: str) -> onnx.ModelProto:
        """See ExportRoute."""
        return build_graph(self._encoder, "fp16", flavour)

    def reference(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """See ExportRoute; float64 in plain numpy, slow."""
        return np.array([logits(self._encoder, list(row), types_of(row)) for row in rows])
