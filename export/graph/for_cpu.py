"""The fastest graph for ONNX Runtime on a CPU: as few passes over a layer's tensors as can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from export.checkpoint.model import Layer, Linear, Norm
from export.graph.fused import Fused
from export.graph.plain import score_mask


class ForCpu(Fused):
    """Flavour of ONNX Runtime 1.23 and later on a CPU: the standard ``Attention``, and ``BiasGelu``.

    Two of the fused operators are the slow way there (docs/decisions/token-wise-int8.md):
    ``SkipLayerNormalization`` works number by number, and ``MultiHeadAttention`` takes half as long
    again as ``Attention``.
    """

    name = "cpu"
    opset = 23

    def prepared(self, layer: Layer) -> Layer:
        """Without biases of key and value, which need no addition of their own.

        The key's adds one number to all scores of a query, which the softmax ignores. The weights of a
        query sum to 1, so the value's passes through attention unchanged and joins the output's.
        """
        through = layer.value.bias.astype(np.float64) @ layer.output.weight.astype(np.float64)
        return replace(
            layer,
            key=_unbiased(layer.key),
            value=_unbiased(layer.value),
            output=Linear(layer.output.weight, (layer.output.bias + through).astype(np.float32)),
        )

    def masks(self) -> tuple[str, str]:
        """[B, 1, S, S] and [B, 1, 1, S]: the operator does not broadcast over queries."""
        graph = self._graph
        first = score_mask(self._parameter)
        length = graph.op("Shape", "input_ids", start=1, end=2)
        shape = graph.op("Concat", length, graph.constant("one_token", np.array([1])), axis=0)
        return graph.op("Expand", first, shape), first

    def add_and_norm(self, name: str, skip: str, x: str, linear: Linear, norm: Norm) -> str:
        """Three operators."""
        biased = self._graph.op("Add", x, self._parameter(f"{name}_bias", linear.bias))
        return self.norm(name, self._graph.op("Add", biased, skip), norm)

    def attention(self, name: str, layer: Layer, query: str, key: str, value: str, mask: str) -> str:
        """One operator, after the query's bias."""
        query = self._graph.op("Add", query, self._parameter(f"{name}_query_bias", layer.query.bias))
        heads = self._parameter.heads
        return self._graph.op(
            "Attention",
            *(query, key, value, mask),
            q_num_heads=heads,
            kv_num_heads=heads,
            scale=self._parameter.scale,
        )


def _unbiased(linear: Linear) -> Linear:
    return replace(linear, bias=np.zeros_like(linear.bias))
