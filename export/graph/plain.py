"""Standard operators only: for TensorRT, and for anything else that reads ONNX.

Written for strongly typed networks, where the graph alone chooses each precision: in FP16
the normalisations are cast to FP32 and back, because the square of a large activation
overflows FP16. The softmax stays: it subtracts the row's maximum first, and a cast between
the two products would keep TensorRT from fusing the attention.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper

from export.checkpoint.model import Array, Layer, Linear, Norm
from export.graph.builder import OPSET
from export.graph.flavour import Batched, Parameters

# Added to the score of a padding token. Far below any score, so that its weight is exactly 0,
# and far enough inside FP16 (±65504) that no score added to it overflows: a row of nothing but
# padding then gets even weights, where −inf would give NaN.
MASKED = -10000.0


def score_mask(parameter: Parameters) -> str:
    """What is added to scores: 0 for a token, MASKED for padding; [B, 1, 1, S]."""
    graph = parameter.graph
    kept = graph.op("Cast", "attention_mask", to=helper.np_dtype_to_tensor_dtype(np.dtype(parameter.dtype)))
    below = graph.op("Sub", kept, parameter("one", np.array(1, np.float32)))
    bias = graph.op("Mul", below, parameter("minus_masked", np.array(-MASKED, np.float32)))
    return graph.op("Unsqueeze", bias, graph.constant("head_and_query", np.array([1, 2])))


class Plain(Batched):
    """Flavour of the ONNX standard, opset 17."""

    name = "plain"
    opset = OPSET

    def __init__(self, parameters: Parameters) -> None:
        self._parameter = parameters
        self._graph = parameters.graph
        self._type = helper.np_dtype_to_tensor_dtype(np.dtype(parameters.dtype))

    def prepared(self, layer: Layer) -> Layer:
        """The scores' scale is multiplied into the query: an operation less, and smaller scores for FP16."""
        scale = np.float32(self._parameter.scale)
        return replace(layer, query=Linear(layer.query.weight * scale, layer.query.bias * scale))

    def masks(self) -> tuple[str, str]:
        """[B, 1, 1, S], which broadcasts over the queries."""
        mask = score_mask(self._parameter)
        return mask, mask

    def norm(self, name: str, x: str, norm: Norm) -> str:
        """In FP32, for inputs and outputs of any precision."""
        graph = self._graph
        half = self._type != TensorProto.FLOAT
        if half:
            x = graph.op("Cast", x, to=TensorProto.FLOAT)
        gamma, beta = graph.constant(f"{name}_gamma", norm.gamma), graph.constant(f"{name}_beta", norm.beta)
        x = graph.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=self._parameter.epsilon)
        return graph.op("Cast", x, to=self._type) if half else x

    def add_and_norm(self, name: str, skip: str, x: str, linear: Linear, norm: Norm) -> str:
        """Two additions, then the norm."""
        biased = self._biased(f"{name}_bias", x, linear.bias)
        return self.norm(name, self._graph.op("Add", biased, skip), norm)

    def gelu(self, name: str, x: str, linear: Linear) -> str:
        """``x/2 · (1 + erf(x/√2))``; halved first, so that FP16 has no 2x to overflow."""
        graph = self._graph
        x = self._biased(f"{name}_bias", x, linear.bias)
        error = graph.op("Erf", graph.op("Div", x, self._scalar("root_two", math.sqrt(2.0))))
        half = graph.op("Mul", x, self._scalar("half", 0.5))
        return graph.op("Mul", half, graph.op("Add", error, self._scalar("one", 1.0)))

    def attention(self, name: str, layer: Layer, query: str, key: str, value: str, mask: str) -> str:
        """Two batched products around a softmax."""
        graph = self._graph
        query = self._heads(self._biased(f"{name}_query_bias", query, layer.query.bias), [0, 2, 1, 3])
        key = self._heads(self._biased(f"{name}_key_bias", key, layer.key.bias), [0, 2, 3, 1])
        value = self._heads(self._biased(f"{name}_value_bias", value, layer.value.bias), [0, 2, 1, 3])
        scores = graph.op("Add", graph.op("MatMul", query, key), mask)
        context = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        context = graph.op("Transpose", context, perm=[0, 2, 1, 3])
        return graph.op(
            "Reshape", context, graph.constant("joined", np.array([0, 0, self._parameter.hidden]))
        )

    def _heads(self, x: str, order: list[int]) -> str:
        """[B, S, hidden] → [B, S, heads, width], transposed to ``order``."""
        heads, hidden = self._parameter.heads, self._parameter.hidden
        shape = self._graph.constant("split", np.array([0, 0, heads, hidden // heads]))
        return self._graph.op("Transpose", self._graph.op("Reshape", x, shape), perm=order)

    def _biased(self, name: str, x: str, bias: Array) -> str:
        return self._graph.op("Add", x, self._parameter(name, bias))

    def _scalar(self, name: str, value: float) -> str:
        return self._parameter(name, np.array(value, np.float32))
