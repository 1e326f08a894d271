"""What the two flavours of the graph do differently; the order of the layers is in encoder.py."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from export.checkpoint.model import Array, Layer, Linear, Norm
from export.graph.builder import GraphBuilder


class Flavour(Protocol):
    """The parts of a layer that ONNX Runtime has fused operators for."""

    name: str
    opset: int
    """The version of the standard operators."""
    matrices: bool
    """Whether the layers compute in [B·S, hidden], instead of [B, S, hidden]."""

    def prepared(self, layer: Layer) -> Layer:
        """The same function of the layer's input with other weights, as the methods below want it."""

    def masks(self) -> tuple[str, str]:
        """The mask as ``attention`` wants it: for the queries of all tokens, and for the first token's."""

    def rows(self, x: str) -> str:
        """[B, S, hidden] in the shape that the layers compute in."""

    def first_rows(self, x: str) -> str:
        """The first token of each text, in the same shape but for the number of tokens."""

    def pooled(self, x: str) -> str:
        """The result of ``first_rows`` as [B, hidden]."""

    def norm(self, name: str, x: str, norm: Norm) -> str:
        """Normalise the last axis."""

    def add_and_norm(self, name: str, skip: str, x: str, linear: Linear, norm: Norm) -> str:
        """Normalise ``skip + x + linear.bias``."""

    def gelu(self, name: str, x: str, linear: Linear) -> str:
        """Exact GELU of ``x + linear.bias``."""

    def attention(self, name: str, layer: Layer, query: str, key: str, value: str, mask: str) -> str:
        """Context of biasless products, all in the layers' shape."""


class Batched:
    """For flavours whose layers compute in [B, S, hidden]."""

    matrices = False
    _graph: GraphBuilder

    def rows(self, x: str) -> str:
        """As it is."""
        return x

    def first_rows(self, x: str) -> str:
        """[B, 1, hidden]."""
        graph = self._graph
        zero, one = graph.constant("first", np.array([0])), graph.constant("second", np.array([1]))
        return graph.op("Slice", x, zero, one, one)

    def pooled(self, x: str) -> str:
        """[B, hidden]."""
        return self._graph.op("Squeeze", x, self._graph.constant("token_axis", np.array([1])))


class Parameters:
    """Constants in the graph's precision, with what both flavours need to know of the encoder."""

    def __init__(
        self, graph: GraphBuilder, dtype: type[np.floating[Any]], heads: int, hidden: int, epsilon: float
    ) -> None:
        self.graph = graph
        self.dtype = dtype
        self.heads = heads
        self.hidden = hidden
        self.epsilon = epsilon

    @property
    def scale(self) -> float:
        """What scores are multiplied with before the softmax."""
        return 1.0 / math.sqrt(self.hidden / self.heads)

    def __call__(self, name: str, value: Array) -> str:
        """An initializer of that name."""
        with np.errstate(over="ignore"):  # FP16 that overflows fails the comparison with FP32
            narrow = value.astype(self.dtype, copy=False)
        return self.graph.constant(name, narrow)
