"""INT8 for TensorRT: static QDQ by nvidia-modelopt, in a process of its own.

TensorRT 11 has no calibrator any more; a graph brings its scales along as QuantizeLinear and
DequantizeLinear pairs. modelopt places them and turns everything else into FP16. It imports
torch, which must not come into the exporter, hence the other process; it needs no GPU.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from export.errors import ExportError
from export.rows import PairRow, types_of
from export.spec import ENCODER_INPUTS, TYPE_IDS
from export.tensorrt.check import check_graph, check_quantised, weight_products
from export.tensorrt.smooth import Inputs, smooth

CALIBRATION_TOKENS = 64
CALIBRATION_ROWS = 256
_SECONDS = 1800
# The ends of the weights' names; the head stays FP16 in both, it is small and decides.
SCOPES = {
    "ffn": ("_expand", "_contract"),
    "linear": ("_query", "_key", "_value", "_output", "_expand", "_contract"),
}


def quantise(
    model: onnx.ModelProto,
    rows: Sequence[Sequence[int]],
    labels: int,
    scope: str = "linear",
    inputs: Sequence[str] = ENCODER_INPUTS,
) -> onnx.ModelProto:
    """A QDQ graph of an FP32 plain graph.

    Args:
        model: FP32, standard operators.
        rows: token ids of real sentences, which calibrate the activations.
        labels: logits a text.
        scope: a key of SCOPES: which products become INT8.
        inputs: names of the graph's inputs.

    Returns:
        INT8 in the chosen products, FP16 elsewhere; inputs and output as they were.

    Raises:
        ExportError: modelopt is not installed, failed, or the sentences are too few.
        VerificationError: what it wrote is not what TensorRT needs.
    """
    check_graph(model, labels, inputs)
    products = [node for node in weight_products(model) if node.input[1].endswith(SCOPES[scope])]
    if not products:
        raise ExportError(
            "the graph has no product to quantise; the weights' names are not the expected ones."
        )
    samples = calibration(rows)
    quantised = _modelopt(smooth(model, products, samples), [node.name for node in products], samples)
    check_graph(quantised, labels, inputs)
    check_quantised(quantised, [node.input[1] for node in products])
    return quantised


def calibration(rows: Sequence[Sequence[int]]) -> Inputs:
    """Ids, mask, and types where rows have any, INT64 [≤ CALIBRATION_ROWS, CALIBRATION_TOKENS], no padding.

    Sentences are strung together and cut: what padding positions compute is never read, but
    it would widen the ranges and cost the real tokens their resolution.

    Raises:
        ExportError: there are not enough tokens for one row.
    """
    flat = np.concatenate([np.asarray(row, np.int64) for row in rows]) if rows else np.empty(0, np.int64)
    count = min(len(flat) // CALIBRATION_TOKENS, CALIBRATION_ROWS)
    if count == 0:
        raise ExportError("there are too few sentences to calibrate INT8 with; add a heldout.tsv.")
    ids = flat[: count * CALIBRATION_TOKENS].reshape(count, CALIBRATION_TOKENS)
    samples = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if any(isinstance(row, PairRow) for row in rows):
        types = np.array([each for row in rows for each in types_of(row)], np.int64)
        samples[TYPE_IDS] = types[: ids.size].reshape(ids.shape)
    return samples


def _modelopt(model: onnx.ModelProto, nodes: Sequence[str], inputs: Inputs) -> onnx.ModelProto:
    if importlib.util.find_spec("modelopt") is None:
        raise ExportError("INT8 for TensorRT needs nvidia-modelopt: .venv/bin/pip install -e '.[tensorrt]'")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        np.savez(Path(folder) / "calibration.npz", **inputs)
        command = [
            sys.executable, "-m", "modelopt.onnx.quantization", "--onnx_path", str(source),
            "--output_path", str(target), "--quantize_mode", "int8", "--calibration_method", "max",
            "--calibration_data_path", str(Path(folder) / "calibration.npz"), "--calibration_eps", "cpu",
            "--high_precision_dtype", "fp16", "--op_types_to_quantize", "MatMul", "--log_level", "ERROR",
            # The square of a large activation overflows FP16.
            "--op_types_to_exclude_fp16", "LayerNormalization",
            "--nodes_to_quantize", *(f"^{name}$" for name in nodes),
        ]  # fmt: skip
        # No GPU even where there is one: the scales must not depend on where the export ran.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=_SECONDS, env=environment
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"modelopt did not end within {_SECONDS} seconds.") from error
        if done.returncode != 0 or not target.is_file():
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
            raise ExportError(f"modelopt failed: {said[0][:300]}")
        return onnx.load(target)
