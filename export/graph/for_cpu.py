"""The fastest graph for ONNX Runtime on a CPU: as few passes over a layer's tensors as can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from export.checkpoint.model import Layer, Linear, Norm
from export.graph.flavour import Parameters
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
    matrices = True

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._first_mask = ""

    def prepared(self, layer: Layer) -> Layer:
        """Without biases of key and value, which need no addition of their own.

        The key's adds one number to all scores of a query, which the softmax ignores. The weights of a
        query sum to 1, so the value's passes through attention unchanged and joins the output's.
        """
        through = layer.value.bias.astype(np.float64) @ layer.output.weight.astype(np.float64)
        # Weights that are too large for FP32 are found by the comparison with the reference.
        with np.errstate(over="ignore"):
            bias = (layer.output.bias + through).astype(np.float32)
        return replace(
            layer,
            key=_unbiased(layer.key),
            value=_unbiased(layer.value),
            output=Linear(layer.output.weight, bias),
        )

    def masks(self) -> tuple[str, str]:
        """[B, 1, S, S] and [B, 1, 2, S]: the operator does not broadcast over queries."""
        graph = self._graph
        mask = score_mask(self._parameter)
        one = graph.constant("one_token", np.array([1]))
        length = graph.op("Shape", "input_ids", start=1, end=2)
        self._first_mask = graph.op("Expand", mask, graph.constant("two_queries", np.array([2, 1])))
        return graph.op("Expand", mask, graph.op("Concat", length, one, axis=0)), self._first_mask

    def rows(self, x: str) -> str:
        """[B·S, hidden]: the operator that rounds rows to INT8 wants a scale for each index of an axis."""
        rows = self._graph.constant("rows", np.array([-1, self._parameter.hidden]))
        return self._graph.op("Reshape", x, rows)

    def first_rows(self, x: str) -> str:
        """[B, hidden]."""
        return self._graph.op("Gather", self._texts(x), self._graph.constant("zero", np.array(0)), axis=1)

    def pooled(self, x: str) -> str:
        """As it is."""
        return x

    def _texts(self, x: str) -> str:
        """[B, Q, hidden] of that, or of [B·Q, hidden]."""
        return self._graph.op("Reshape", x, self._graph.cached("shape of texts", self._shape_of_texts))

    def _shape_of_texts(self) -> str:
        graph = self._graph
        texts = graph.op("Shape", "input_ids", start=0, end=1)
        rest = graph.constant("tokens_and_hidden", np.array([-1, self._parameter.hidden]))
        return graph.op("Concat", texts, rest, axis=0)

    def add_and_norm(self, name: str, skip: str, x: str, linear: Linear, norm: Norm) -> str:
        """Three operators."""
        biased = self._graph.op("Add", x, self._parameter(f"{name}_bias", linear.bias))
        return self.norm(name, self._graph.op("Add", biased, skip), norm)

    def attention(self, name: str, layer: Layer, query: str, key: str, value: str, mask: str) -> str:
        """One operator, after the query's bias.

        The first token's query is asked twice. The product of a single row with the values sums four
        tokens at a time, so padding a text of 4n + 3 tokens would change its last bit; that of two rows
        adds token by token, and adding the zeros of the padding changes nothing.
        """
        biased = self._graph.op("Add", query, self._parameter(f"{name}_query_bias", layer.query.bias))
        queries = self._texts(biased)
        is_first = mask == self._first_mask
        if is_first:
            queries = self._graph.op("Concat", queries, queries, axis=1)
        heads = self._parameter.heads
        context = self._graph.op(
            "Attention",
            *(queries, self._texts(key), self._texts(value), mask),
            q_num_heads=heads,
            kv_num_heads=heads,
            scale=self._parameter.scale,
        )
        # ONNX Runtime infers a wrong width of the result, which the shapes of both overrule.
        return self.first_rows(context) if is_first else self.rows(context)


def _unbiased(linear: Linear) -> Linear:
    return replace(linear, bias=np.zeros_like(linear.bias))
