"""The transformer encoder as a graph: its structure, for any precision and flavour."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from export.checkpoint.model import Array, Encoder, Layer, Linear
from export.graph.builder import GraphBuilder
from export.graph.flavour import Flavour, Parameters
from export.graph.for_cpu import ForCpu
from export.graph.fused import Fused
from export.graph.plain import Plain
from export.spec import ENCODER_INPUTS, TYPE_IDS

PRECISIONS: dict[str, type[np.floating[Any]]] = {"fp32": np.float32, "fp16": np.float16}
FLAVOURS: dict[str, type[ForCpu | Fused | Plain]] = {
    flavour.name: flavour for flavour in (ForCpu, Fused, Plain)
}

# How many rows a matrix has: one for each token of the batch, or for each text.
TOKENS, TEXTS = "tokens", "texts"
_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh"}


def build_graph(encoder: Encoder, precision: str, flavour: str = "cpu") -> onnx.ModelProto:
    """The ONNX model of an encoder.

    Args:
        encoder: FP32 weights.
        precision: ``fp32`` or ``fp16`` (weights and activations; inputs and output stay INT64
            and FP32). INT8 is a pass over the finished FP32 graph (export.quantise).
        flavour: ``cpu`` and ``fused`` for ONNX Runtime on a CPU and on a GPU, ``plain`` for
            standard operators only.

    Returns:
        input_ids, attention_mask INT64 [B, S] → logits FP32 [B, labels]; token_type_ids INT64 [B, S] is a
        third input where the encoder has types.

    Raises:
        ExportError: the weights do not fit into one ONNX file.
    """
    graph = GraphBuilder("encoder", opset=FLAVOURS[flavour].opset)
    hidden = encoder.words.shape[1]
    parameters = Parameters(graph, PRECISIONS[precision], encoder.heads, hidden, encoder.epsilon)
    return _Writer(encoder, parameters, FLAVOURS[flavour](parameters)).write(precision)


class _Writer:
    def __init__(self, encoder: Encoder, parameter: Parameters, flavour: Flavour) -> None:
        self.encoder = encoder
        self.graph = parameter.graph
        self.parameter = parameter
        self.flavour = flavour

    def write(self, precision: str) -> onnx.ModelProto:
        graph, encoder = self.graph, self.encoder
        masks = self.flavour.masks()
        x = self.flavour.rows(self.embeddings())
        last = len(encoder.layers) - 1
        for i, layer in enumerate(encoder.layers):
            # The head reads the first token alone, so the last layer computes only that row:
            # exact, and it saves most of one layer in six.
            x = self.layer(f"layer{i}", layer, x, masks[i == last], first_token_only=i == last)
        pooled = self.dense(self.flavour.pooled(x), "dense", encoder.dense)
        pooled = graph.op(_ACTIVATIONS[encoder.activation], pooled)
        logits = self.dense(pooled, "classifier", encoder.classifier)
        graph.op("Cast", logits, to=onnx.TensorProto.FLOAT)
        graph.rename_last("logits")
        labels = encoder.classifier.weight.shape[1]
        inputs = ENCODER_INPUTS if encoder.types is None else (*ENCODER_INPUTS, TYPE_IDS)
        return graph.model(labels, {"precision": precision, "flavour": self.flavour.name}, inputs)

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
        summed = graph.op("Add", words, positions)
        if self.encoder.types is not None:
            types = graph.op("Gather", self.parameter("types", self.encoder.types), TYPE_IDS)
            summed = graph.op("Add", summed, types)
        return self.flavour.norm("embedding_norm", summed, self.encoder.embedding_norm)

    def layer(self, name: str, layer: Layer, x: str, mask: str, *, first_token_only: bool) -> str:
        flavour = self.flavour
        layer = flavour.prepared(layer)
        asking, rows = x, TOKENS
        if first_token_only:
            asking, rows = flavour.first_rows(x), TEXTS
        query = self.product(asking, f"{name}_query", layer.query.weight, rows)
        key = self.product(x, f"{name}_key", layer.key.weight)
        value = self.product(x, f"{name}_value", layer.value.weight)
        context = flavour.attention(name, layer, query, key, value, mask)
        output = self.product(context, f"{name}_output", layer.output.weight, rows)
        x = flavour.add_and_norm(f"{name}_attention_norm", asking, output, layer.output, layer.attention_norm)
        wide = self.product(x, f"{name}_expand", layer.expand.weight, rows)
        wide = flavour.gelu(f"{name}_expand", wide, layer.expand)
        output = self.product(wide, f"{name}_contract", layer.contract.weight, rows)
        return flavour.add_and_norm(f"{name}_output_norm", x, output, layer.contract, layer.output_norm)

    def product(self, x: str, name: str, weight: Array, rows: str = TOKENS) -> str:
        """``x @ weight``; the bias belongs to the op that follows, which adds it for free."""
        if self.flavour.matrices:
            self.graph.declare_matrix(x, self.parameter.dtype, rows, len(weight))
        return self.graph.op("MatMul", x, self.parameter(name, weight))
