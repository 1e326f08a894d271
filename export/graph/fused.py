"""Fused com.microsoft operators: the fastest graph for ONNX Runtime on a GPU, and for it alone."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from export.checkpoint.model import Layer, Linear, Norm
from export.graph.builder import MICROSOFT, OPSET
from export.graph.flavour import Batched, Parameters


class Fused(Batched):
    """Flavour of ONNX Runtime on a GPU: SkipLayerNormalization, BiasGelu, MultiHeadAttention."""

    name = "fused"
    opset = OPSET

    def __init__(self, parameters: Parameters) -> None:
        self._parameter = parameters
        self._graph = parameters.graph

    def prepared(self, layer: Layer) -> Layer:
        """As it is."""
        return layer

    def masks(self) -> tuple[str, str]:
        """INT32 [B, S], whatever the queries."""
        mask = self._graph.op("Cast", "attention_mask", to=TensorProto.INT32)
        return mask, mask

    def norm(self, name: str, x: str, norm: Norm) -> str:
        """The standard operator; its sums are FP32 inside."""
        gamma, beta = self._norm(name, norm)
        return self._graph.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=self._parameter.epsilon)

    def add_and_norm(self, name: str, skip: str, x: str, linear: Linear, norm: Norm) -> str:
        """One operator."""
        gamma, beta = self._norm(name, norm)
        bias = self._parameter(f"{name}_bias", linear.bias)
        return self._graph.op(
            "SkipLayerNormalization",
            *(x, skip, gamma, beta, bias),
            domain=MICROSOFT,
            epsilon=self._parameter.epsilon,
        )

    def gelu(self, name: str, x: str, linear: Linear) -> str:
        """One operator."""
        return self._graph.op("BiasGelu", x, self._parameter(f"{name}_bias", linear.bias), domain=MICROSOFT)

    def attention(self, name: str, layer: Layer, query: str, key: str, value: str, mask: str) -> str:
        """One operator, biases included."""
        bias = np.concatenate([layer.query.bias, layer.key.bias, layer.value.bias])
        return self._graph.op(
            "MultiHeadAttention",
            *(query, key, value, self._parameter(f"{name}_qkv_bias", bias), mask),
            domain=MICROSOFT,
            num_heads=self._parameter.heads,
            scale=self._parameter.scale,
        )

    def _norm(self, name: str, norm: Norm) -> tuple[str, str]:
        return self._parameter(f"{name}_gamma", norm.gamma), self._parameter(f"{name}_beta", norm.beta)
