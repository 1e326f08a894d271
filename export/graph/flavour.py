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

    def mask(self) -> str:
        """The attention mask in the form that ``attention`` wants."""

    def norm(self, name: str, x: str, norm: Norm) -> str:
        """Normalise the last axis."""

    def add_and_norm(self, name: str, skip: str, x: str, linear: Linear, norm: Norm) -> str:
        """Normalise ``skip + x + linear.bias``."""

    def gelu(self, name: str, x: str, linear: Linear) -> str:
        """Exact GELU of ``x + linear.bias``."""

    def query_weight(self, layer: Layer) -> Array:
        """The query's weights [hidden, hidden], scaled if ``attention`` does not scale."""

    def attention(self, name: str, layer: Layer, query: str, key: str, value: str, mask: str) -> str:
        """Context [B, Q, hidden] of biasless products: query [B, Q, hidden], the others [B, S, hidden]."""


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
