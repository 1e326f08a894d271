"""Can TensorRT take a graph, strongly typed: checked before anything is handed to a GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from export.errors import VerificationError
from export.spec import ENCODER_INPUTS

_STANDARD = ("", "ai.onnx")


def check_graph(model: onnx.ModelProto, labels: int, wanted: Sequence[str] = ENCODER_INPUTS) -> None:
    """Standard operators, agreed inputs and output, and one float type into every operator.

    Raises:
        VerificationError: TensorRT would refuse the graph, or build another network than the graph describes.
    """
    foreign = sorted({f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain not in _STANDARD})
    if foreign:
        raise VerificationError(
            f"TensorRT does not know {', '.join(foreign)}; the graph must be the plain one."
        )
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = {i.name: _type(i) for i in model.graph.input if i.name not in initializers}
    outputs = {o.name: _type(o) for o in model.graph.output}
    agreed = dict.fromkeys(wanted, (TensorProto.INT64, 2))
    if inputs != agreed or outputs != {"logits": (TensorProto.FLOAT, 2)}:
        raise VerificationError(
            f"a graph for TensorRT takes {' and '.join(wanted)} INT64 [batch, sequence] and gives "
            f"logits FP32 [batch, labels]; this one has {sorted(inputs)} and {sorted(outputs)}."
        )
    if model.graph.output[0].type.tensor_type.shape.dim[1].dim_value != labels:
        raise VerificationError(f"the graph does not give {labels} logits a text.")
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        reason = str(error).strip().splitlines()[-1]
        raise VerificationError(f"the graph is not strongly typed: {reason}") from error


def check_quantised(model: onnx.ModelProto, weights: Collection[str]) -> None:
    """QuantizeLinear and DequantizeLinear stand where TensorRT makes INT8 products of them.

    Both operands of every MatMul over one of ``weights`` (initializer names) and nothing
    else: weights per column, activations per tensor, both symmetric. Everything between the
    products, residual sums and normalisation above all, stays FP16.

    Raises:
        VerificationError: a pair is missing, of another kind, or where it does not belong.
    """
    graph = _Graph(model)
    quantised: set[str] = set()
    for node in model.graph.node:
        pairs = [graph.pair(name) for name in node.input]
        if node.op_type == "DequantizeLinear" or not any(pairs):
            continue
        if node.op_type != "MatMul" or not all(pairs):
            raise VerificationError(f"INT8 where it does not belong: {node.op_type} {node.name}.")
        activation, weight = pairs
        if activation is None or weight is None:  # for the type checker: all() has checked it
            continue
        source = graph.source(weight)
        if source not in weights:
            raise VerificationError(f"{node.name} multiplies in INT8 by {source}, which is no chosen weight.")
        for which, pair, axes in (("activation", activation, 0), ("weight", weight, 1)):
            _check_pair(graph, pair, f"the {which} of {node.name}", axes)
        quantised.add(source)
    if missing := set(weights) - quantised:
        raise VerificationError(f"not quantised: {', '.join(sorted(missing)[:5])} ({len(missing)} in all).")


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.made_by = {output: node for node in model.graph.node for output in node.output}

    def pair(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that makes a tensor, if one does."""
        node = self.made_by.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def source(self, dequantise: onnx.NodeProto) -> str:
        """What the pair was given: a tensor's name, that of the INT8 weights where those are stored."""
        quantise = self.made_by.get(dequantise.input[0])
        return quantise.input[0] if quantise is not None else dequantise.input[0]


def _check_pair(graph: _Graph, node: onnx.NodeProto, what: str, scale_axes: int) -> None:
    scale = numpy_helper.to_array(graph.constants[node.input[1]])
    if scale.ndim != scale_axes:
        raise VerificationError(f"{what} has a scale of shape {list(scale.shape)}.")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise VerificationError(f"{what} has a scale that is not positive.")
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
    # Without a zero point ONNX means UINT8.
    if zero is None or zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
        raise VerificationError(f"{what} is not symmetric INT8.")


def weight_products(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every MatMul whose second operand is a constant, in the graph's order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            yield node


def _type(value: onnx.ValueInfoProto) -> tuple[int, int]:
    tensor = value.type.tensor_type
    return tensor.elem_type, len(tensor.shape.dim)
