"""Whether attention is faster with lengths in the place of its mask of two dimensions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tools.gpu_check.job import CheckFailed
from tools.gpu_check.session import DeviceSession

_MASK = 4
"""The place of key_padding_mask among the inputs of MultiHeadAttention."""
_ROUNDS = 3


def with_lengths(graph: Path, to: Path) -> None:
    """Write the graph with ``key_padding_mask`` INT32 [B], the tokens of each row, in the place of [B, S].

    ONNX Runtime reads both. Some of its CUDA kernels for attention take the former only.

    Raises:
        CheckFailed: the graph has no such node.
    """
    model = onnx.load(graph)
    nodes = [node for node in model.graph.node if node.op_type == "MultiHeadAttention"]
    if not nodes:
        raise CheckFailed("The graph has no MultiHeadAttention.")
    for node in nodes:
        node.input[_MASK] = "row_lengths"
    model.graph.initializer.append(helper.make_tensor("row_axis", TensorProto.INT64, [1], [1]))
    made = [
        helper.make_node("Cast", ["attention_mask"], ["row_mask"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["row_mask", "row_axis"], ["row_lengths"], keepdims=0),
    ]
    for place, node in enumerate(made):
        model.graph.node.insert(place, node)
    onnx.save(model, to)


def compare_masks(graph: Path, device: str, folder: Path, texts: int, width: int) -> dict[str, float]:
    """Run both graphs in turn, on data that lies on the device.

    Args:
        graph: a served one.
        device: ``cuda`` or ``cpu``.
        folder: for the other graph.
        texts: rows of a run; half of them are half as long as the others.
        width: tokens of a row.

    Returns:
        ``lengths_speed``: the median, over rounds, of the time with the mask divided by that with lengths;
        ``largest``: the largest difference of a logit.
    """
    other = folder / "with_lengths.onnx"
    with_lengths(graph, other)
    ids, mask = np.full((texts, width), 5, np.int64), np.ones((texts, width), np.int64)
    ids[::2, width // 2 :] = mask[::2, width // 2 :] = 0
    sessions = [DeviceSession(each, device) for each in (graph, other)]
    logits = [session.run(ids, mask) for session in sessions]
    runs = [session.on_device(ids, mask) for session in sessions]
    for run in runs:
        run()
    # On a CPU the figure means nothing; once will do to know that this works.
    rounds = [[_seconds(run, 0.2 * (device == "cuda")) for run in runs] for _ in range(_ROUNDS)]
    return {
        "lengths_speed": statistics.median(with_mask / lengths for with_mask, lengths in rounds),
        "largest": float(np.abs(logits[0] - logits[1]).max()),
    }


def _seconds(run: Callable[[], None], least_s: float) -> float:
    """Seconds of a run, from as many as fill ``least_s``."""
    begin, done = time.perf_counter(), 0
    while not done or time.perf_counter() - begin < least_s:
        run()
        done += 1
    return (time.perf_counter() - begin) / done
