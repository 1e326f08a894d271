"""Make activations easy to quantise, without changing what the graph computes.

A few channels of a transformer's activations are far larger than the rest, and one INT8 scale
for the whole tensor then leaves the rest a handful of steps. Dividing each channel by a factor
and multiplying the matching row of the weights by it moves the difficulty into the weights,
which have a scale per column (Xiao et al., SmoothQuant, arXiv 2211.10438).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

# Best of 0.5, 0.75, 0.85 and 0.95 on the bundled checkpoint (docs/tensorrt.md).
STRENGTH = 0.85
_SMALLEST = 1e-5

Inputs = Mapping[str, npt.NDArray[np.int64]]


def smooth(model: onnx.ModelProto, products: Sequence[onnx.NodeProto], inputs: Inputs) -> onnx.ModelProto:
    """A copy of an FP32 graph with smoothed operands.

    Args:
        model: FP32, every product's weight an initializer [in, out] that nothing else reads.
        products: MatMul nodes of ``model`` over such weights.
        inputs: input_ids and attention_mask INT64 [B, S] without padding, which would count.

    Returns:
        The same function: one ``Mul`` by a constant [in] before the products of a tensor.
    """
    smoothed = onnx.ModelProto()
    smoothed.CopyFrom(model)
    graph = smoothed.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    chosen = {node.name for node in products}
    peaks = _peaks(model, sorted({node.input[0] for node in products}), inputs)
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in graph.node:
        if node.name in chosen:
            tensor = node.input[0]
            readers = [weights[other.input[1]] for other in products if other.input[0] == tensor]
            if tensor not in made:
                made.add(tensor)
                factor = _factor(peaks[tensor], readers)
                graph.initializer.append(numpy_helper.from_array(1 / factor, f"{tensor}_smoothing"))
                operands = [tensor, f"{tensor}_smoothing"]
                nodes.append(helper.make_node("Mul", operands, [f"{tensor}_smooth"], f"{tensor}_smooth"))
                for reader in readers:
                    harder = numpy_helper.to_array(reader) * factor[:, None]
                    reader.CopyFrom(numpy_helper.from_array(harder.astype(np.float32), reader.name))
            node.input[0] = f"{tensor}_smooth"
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return smoothed


def _factor(peak: npt.NDArray[np.float32], weights: Sequence[onnx.TensorProto]) -> npt.NDArray[np.float32]:
    rows = [np.abs(numpy_helper.to_array(weight)).max(axis=1) for weight in weights]
    weight_peak = np.maximum(np.max(rows, axis=0), _SMALLEST)
    factor = np.maximum(peak, _SMALLEST) ** STRENGTH / weight_peak ** (1 - STRENGTH)
    return np.asarray(factor, np.float32)


def _peaks(
    model: onnx.ModelProto, tensors: Sequence[str], inputs: Inputs
) -> dict[str, npt.NDArray[np.float32]]:
    """The largest magnitude of each channel, FP32 [in], of tensors [B, S, in]."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in tensors:
        watched.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    peaks: dict[str, npt.NDArray[np.float32]] = {}
    # Row by row: all activations of all rows at once would be gigabytes.
    for row in range(len(inputs["input_ids"])):
        found = session.run(list(tensors), {name: value[row : row + 1] for name, value in inputs.items()})
        for name, value in zip(tensors, found, strict=True):
            peak = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
    return peaks
