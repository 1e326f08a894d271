"""The pass itself: find the multiplications with constant weights, and replace them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from export.graph.builder import GraphBuilder
from export.graph.for_cpu import ForCpu
from export.quantise.schemes import Activations, Float, Operand, Scheme, quantise_columns

IDS = "input_ids"
# A little below the least value of GELU, by its error function or by tanh.
LOWEST = dict.fromkeys(("BiasGelu", "Gelu", "FastGelu"), -0.171)


@dataclass(frozen=True)
class Product:
    """A ``MatMul`` of activations with a constant: the tensors it reads and the weight's name."""

    node: str
    activations: str
    weight: str


def products(model: onnx.ModelProto) -> list[Product]:
    """Every MatMul of the graph whose right side is a constant FP32 matrix, in graph order."""
    constants = {t.name: t for t in model.graph.initializer}
    return [
        Product(node.name, node.input[0], node.input[1])
        for node in model.graph.node
        if node.op_type == "MatMul" and _is_matrix(constants.get(node.input[1]))
    ]


def quantisable(model: onnx.ModelProto) -> list[str]:
    """Names of the weights that `quantise` rounds: the word table, and every product's weight once."""
    tables = [node.input[0] for node in model.graph.node if _is_word_lookup(node, model)]
    return list(dict.fromkeys([*tables, *(product.weight for product in products(model))]))


def quantise(
    model: onnx.ModelProto,
    scheme: Scheme,
    *,
    wide: Collection[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """A copy of an FP32 model with INT8 products and an INT8 word table.

    Args:
        model: input_ids, attention_mask INT64 [B, S] → logits FP32 [B, labels]; not changed.
        scheme: how to multiply.
        wide: names of weights that stay FP32, because rounding them costs agreement.
        metadata: further properties to write into the file.
    """
    chosen = {p.node: p for p in products(model) if p.weight not in wide}
    weights = {
        t.name: numpy_helper.to_array(t) for t in _constants(model, {p.weight for p in chosen.values()})
    }
    graph = GraphBuilder(model.graph.name, "int8_", opset_of(model))
    known = {each.name: each for each in _activations(model)}
    operands: dict[str, Operand] = {}
    for node in model.graph.node:
        if node.name in chosen:
            found = chosen[node.name]
            if found.activations not in operands:
                operands[found.activations] = scheme.operand(graph, known[found.activations])
            scheme.product(graph, operands[found.activations], found.weight, weights[found.weight])
            graph.rename_last(node.output[0])
        elif _is_word_lookup(node, model) and node.input[0] not in wide:
            (table,) = _constants(model, {node.input[0]})
            _lookup(graph, table.name, numpy_helper.to_array(table))
            graph.rename_last(node.output[0])
        else:
            graph.keep(node)
    return graph.in_place_of(model, {"precision": "int8", **(metadata or {})})


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a model is written in."""
    return next(opset.version for opset in model.opset_import if opset.domain == "")


def _activations(model: onnx.ModelProto) -> Iterator[Activations]:
    """What the graph says of every tensor that a product reads."""
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    rows = _row_counts(model)
    for name in {product.activations for product in products(model)}:
        yield Activations(name, rows.get(name, ""), LOWEST.get(makers.get(name, "")))


def _row_counts(model: onnx.ModelProto) -> dict[str, str]:
    """Matrices, and the name of how many rows they have, where equal names are sure to be equal numbers.

    Only our own writer promises that. Shapes in other graphs are what a tracer inferred.
    """
    if {p.key: p.value for p in model.metadata_props}.get("flavour") != ForCpu.name:
        return {}
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
    return {name: shape[0].dim_param for name, shape in shapes.items() if len(shape) == 2}


def _is_matrix(tensor: onnx.TensorProto | None) -> bool:
    return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2


def _is_word_lookup(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    if (
        node.op_type != "Gather"
        or node.input[1] != IDS
        or any(a.name == "axis" and a.i for a in node.attribute)
    ):
        return False
    # One column is not a table worth rounding: it is the scales of one.
    return any(_is_matrix(tensor) and tensor.dims[1] > 1 for tensor in _constants(model, {node.input[0]}))


def _constants(model: onnx.ModelProto, names: Collection[str]) -> Iterator[onnx.TensorProto]:
    return (tensor for tensor in model.graph.initializer if tensor.name in names)


def _lookup(graph: GraphBuilder, name: str, table: Float) -> str:
    """Rows of an INT8 table [vocabulary, hidden], each with its own FP32 scale."""
    by_row, scale = quantise_columns(table.T)
    rows = graph.op("Gather", graph.constant(f"{name}_int8", by_row.T), IDS)
    scales = graph.op("Gather", graph.constant(f"{name}_scale", scale[:, np.newaxis]), IDS)
    return graph.op("Mul", graph.op("Cast", rows, to=onnx.TensorProto.FLOAT), scales)
