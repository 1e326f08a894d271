"""What a static scheme needs to know of the activations: measured on sample texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxruntime.quantization.calibrate import HistogramCollector

from export.graph.builder import GraphBuilder
from export.quantise.rewrite import opset_of, products
from export.rows import feeds

METHODS = ("minmax", "percentile", "entropy")
PERCENTILE = 99.99
SMOOTHING = 0.5
Activations = npt.NDArray[np.float32]


def activation_ranges(model: onnx.ModelProto, rows: Sequence[Sequence[int]], method: str) -> dict[str, float]:
    """The magnitude that a static scheme maps to ±127, for every tensor that is multiplied.

    Args:
        model: the FP32 model.
        rows: token ids of sample texts; each runs alone, so that padding is not counted.
        method: ``minmax``; ``percentile`` (of all values, 99.99); ``entropy`` (least
            Kullback-Leibler divergence between the FP32 and the INT8 histogram).
    """
    found = _activations(model, rows)
    if method == "minmax":
        return {name: float(np.abs(values).max()) for name, values in found.items()}
    collector = HistogramCollector(
        method=method,
        symmetric=True,
        num_bins=2048,
        num_quantized_bins=128,
        percentile=PERCENTILE,
        scenario="same",
    )
    with redirect_stdout(StringIO()):  # it prints what it does
        # One flat array a tensor: it cannot stack arrays of unequal lengths.
        collector.collect({name: [values.ravel()] for name, values in found.items()})
        ranges = collector.compute_collection_result()
    return {name: float(max(abs(pair[0]), abs(pair[1]))) for name, pair in ranges.items()}


def smooth(model: onnx.ModelProto, rows: Sequence[Sequence[int]]) -> onnx.ModelProto:
    """Move outlier channels from the activations into the weights, leaving every product as it is.

    SmoothQuant (Xiao et al. 2023) with α = 0.5: channel j of the activations is divided by
    ``max|X_j|^α / max|W_j|^(1−α)`` and row j of the weights multiplied by it.
    """
    found = {name: np.abs(values).max(axis=0) for name, values in _activations(model, rows).items()}
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    readers: dict[str, list[str]] = {}
    for product in products(model):
        readers.setdefault(product.activations, []).append(product.weight)
    graph = GraphBuilder(model.graph.name, "smooth_", opset_of(model))
    divided: dict[str, str] = {}
    for node in model.graph.node:
        is_product = node.op_type == "MatMul" and node.input[0] in readers and node.input[1] in weights
        if not is_product:
            graph.keep(node)
            continue
        x = node.input[0]
        weight_max = np.max([np.abs(weights[w]).max(axis=1) for w in readers[x]], axis=0)
        factor = np.maximum(found[x], 1e-5) ** SMOOTHING / np.maximum(weight_max, 1e-5) ** (1 - SMOOTHING)
        factor = factor.astype(np.float32)
        if x not in divided:
            divided[x] = graph.op("Mul", x, graph.constant(f"{x}_smoothing", np.float32(1) / factor))
        smoothed = graph.constant(f"{node.input[1]}_smoothed", weights[node.input[1]] * factor[:, np.newaxis])
        graph.op("MatMul", divided[x], smoothed)
        graph.rename_last(node.output[0])
    return graph.in_place_of(model, {})


def _activations(model: onnx.ModelProto, rows: Sequence[Sequence[int]]) -> dict[str, Activations]:
    """Every multiplied tensor, FP32 [all tokens, channels], over all texts."""
    names = sorted({product.activations for product in products(model)})
    with_outputs = onnx.ModelProto()
    with_outputs.CopyFrom(model)
    with_outputs.graph.output.extend(
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names
    )
    run = _runner(with_outputs, names)
    found: dict[str, list[Activations]] = {name: [] for name in names}
    for row in rows:
        for name, value in zip(names, run(row), strict=True):
            found[name].append(value.reshape(-1, value.shape[-1]))
    return {name: np.concatenate(values) for name, values in found.items()}


def _runner(model: onnx.ModelProto, outputs: list[str]) -> Callable[[Sequence[int]], list[Activations]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {each.name for each in session.get_inputs()}

    def run(row: Sequence[int]) -> list[Activations]:
        found: list[Activations] = session.run(outputs, feeds([row], inputs))
        return found

    return run
