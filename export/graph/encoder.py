"""The transformer encoder with fused com.microsoft operators, for ONNX Runtime."""

from __future__ import annotations

import math

import numpy as np
import onnx

from export.checkpoint import Array, Encoder, Layer, Linear, Norm
from export.graph.builder import MICROSOFT, GraphBuilder
from export.graph.linear import FloatMatmul, Matmul, TokenwiseInt8Matmul

PRECISIONS = ("fp32", "fp16", "int8")


def build_graph(encoder: Encoder, precision: str) -> onnx.ModelProto:
    """The ONNX model of an encoder.

    Args:
        encoder: FP32 weights.
        precision: ``fp32``, ``fp16`` (weights and activations; inputs and output stay INT64
            and FP32) or ``int8`` (token-wise dynamic; the head stays FP32).

    Returns:
        input_ids, attention_mask INT64 [B, S] → logits FP32 [B, labels].
    """
    matmul: Matmul = TokenwiseInt8Matmul()
    if precision != "int8":
        matmul = FloatMatmul(np.float16 if precision == "fp16" else np.float32)
    return _Writer(encoder, matmul).write(precision)


class _Writer:
    def __init__(self, encoder: Encoder, matmul: Matmul) -> None:
        self.encoder = encoder
        self.matmul = matmul
        self.graph = GraphBuilder("encoder")

    def write(self, precision: str) -> onnx.ModelProto:
        graph, encoder = self.graph, self.encoder
        mask = graph.op("Cast", "attention_mask", to=onnx.TensorProto.INT32)
        x = self.embeddings()
        last = len(encoder.layers) - 1
        for i, layer in enumerate(encoder.layers):
            # The head reads the first token alone, so the last layer computes only that row:
            # exact, and it saves most of one layer in six.
            x = self.layer(f"layer{i}", layer, x, mask, first_token_only=i == last)
        pooled = graph.op("Squeeze", x, graph.constant("token_axis", np.array([1])))
        pooled = self.dense(pooled, "dense", encoder.dense)
        pooled = graph.op("Relu", pooled)
        logits = self.dense(pooled, "classifier", encoder.classifier)
        graph.op("Cast", logits, to=onnx.TensorProto.FLOAT)
        graph.rename_last("logits")
        labels = encoder.classifier.weight.shape[1]
        return graph.model(labels, {"precision": precision, "flavour": "fused"})

    def parameter(self, name: str, value: Array) -> str:
        return self.graph.constant(name, value.astype(self.matmul.dtype))

    def dense(self, x: str, name: str, linear: Linear) -> str:
        weight = self.parameter(f"{name}_weight", linear.weight)
        return self.graph.op("Gemm", x, weight, self.parameter(f"{name}_bias", linear.bias))

    def embeddings(self) -> str:
        graph = self.graph
        words = graph.op("Gather", self.parameter("words", self.encoder.words), "input_ids")
        length = graph.op("Shape", "input_ids", start=1, end=2)
        zero = graph.constant("first", np.array([0]))
        positions = self.parameter("positions", self.encoder.positions)
        positions = graph.op("Slice", positions, zero, length, zero)
        norm = self.norm("embedding_norm", self.encoder.embedding_norm)
        summed = graph.op("Add", words, positions)
        return graph.op("LayerNormalization", summed, *norm, axis=-1, epsilon=self.encoder.epsilon)

    def norm(self, name: str, norm: Norm) -> tuple[str, str]:
        return self.parameter(f"{name}_gamma", norm.gamma), self.parameter(f"{name}_beta", norm.beta)

    def add_and_norm(self, name: str, skip: str, x: str, bias: Linear, norm: Norm) -> str:
        """Norm(skip + x + bias) in one op."""
        gamma, beta = self.norm(name, norm)
        shift = self.parameter(f"{name}_bias", bias.bias)
        epsilon = self.encoder.epsilon
        return self.graph.op(
            "SkipLayerNormalization", x, skip, gamma, beta, shift, domain=MICROSOFT, epsilon=epsilon
        )

    def layer(self, name: str, layer: Layer, x: str, mask: str, *, first_token_only: bool) -> str:
        graph, matmul = self.graph, self.matmul
        every = matmul.operand(graph, x)
        asking = every
        if first_token_only:
            zero, one = graph.constant("first", np.array([0])), graph.constant("second", np.array([1]))
            x = graph.op("Slice", x, zero, one, one)
            asking = matmul.operand(graph, x)
        query = matmul.product(graph, asking, f"{name}_query", layer.query.weight)
        key = matmul.product(graph, every, f"{name}_key", layer.key.weight)
        value = matmul.product(graph, every, f"{name}_value", layer.value.weight)
        context = self.attention(name, layer, query, key, value, mask)
        output = matmul.product(graph, matmul.operand(graph, context), f"{name}_output", layer.output.weight)
        x = self.add_and_norm(f"{name}_attention_norm", x, output, layer.output, layer.attention_norm)
        wide = matmul.product(graph, matmul.operand(graph, x), f"{name}_expand", layer.expand.weight)
        wide = graph.op(
            "BiasGelu", wide, self.parameter(f"{name}_expand_bias", layer.expand.bias), domain=MICROSOFT
        )
        output = matmul.product(graph, matmul.operand(graph, wide), f"{name}_contract", layer.contract.weight)
        return self.add_and_norm(f"{name}_output_norm", x, output, layer.contract, layer.output_norm)

    def attention(self, name: str, layer: Layer, query: str, key: str, value: str, mask: str) -> str:
        bias = np.concatenate([layer.query.bias, layer.key.bias, layer.value.bias])
        hidden = layer.query.weight.shape[1]
        return self.graph.op(
            "MultiHeadAttention",
            query,
            key,
            value,
            self.parameter(f"{name}_qkv_bias", bias),
            mask,
            domain=MICROSOFT,
            num_heads=self.encoder.heads,
            scale=1.0 / math.sqrt(hidden / self.encoder.heads),
        )
