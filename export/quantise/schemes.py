"""How one product ``x @ W`` is computed in INT8: token-wise, static, or in blocks of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from export.graph.builder import MICROSOFT, GraphBuilder

Float = npt.NDArray[np.float32]
FULL_RANGE, REDUCED_RANGE = 127, 63
_TINY = np.float32(1e-20)
_LEVELS = np.float32(127)
_HUGE = np.float32(3e38)


@dataclass(frozen=True)
class Activations:
    """What is known of activations FP32 [..., in] before they run.

    rows: for a matrix [rows, in], a name that matrices of equally many rows share; else empty.
    lowest: a number that no value is below, if the operator that gave them has one.
    """

    name: str
    rows: str = ""
    lowest: float | None = None


@dataclass(frozen=True)
class Operand:
    """Activations ready to be multiplied, shared by all products that read the same tensor.

    rows: UINT8 around 128, or FP32 for weight-only schemes; step: FP32 scalar scale;
    scale: FP32 [..., 1], the further scale of each row, or empty.
    """

    rows: str
    step: str = ""
    scale: str = ""


class Scheme(Protocol):
    """A way to multiply; prepares the left side once, then uses it as often as needed."""

    def operand(self, graph: GraphBuilder, x: Activations) -> Operand:
        """Prepare the activations."""

    def product(self, graph: GraphBuilder, x: Operand, name: str, weight: Float) -> str:
        """Multiply with a constant weight FP32 [in, out]; returns FP32 [..., out]."""


class Tokenwise:
    """Dynamic: each token's row of activations gets a scale of its own.

    Activations are UINT8 around 128, because MLAS runs signed ones about six times slower on
    x86; weights are symmetric INT8 with one scale a column.

    Args:
        weight_peak: largest magnitude of a weight. 127 uses the whole range; 63 keeps the sum of
            two UINT8 × INT8 products inside 16 bits (255 · 63 · 2 < 2^15), which is where CPUs
            without VNNI saturate.
    """

    def __init__(self, weight_peak: int = FULL_RANGE) -> None:
        self._weight_peak = weight_peak

    def operand(self, graph: GraphBuilder, x: Activations) -> Operand:
        """Scale each row to ±127 and round it to UINT8.

        A row of zeros has the scale 0. Whatever 0/0 is rounded to is finite, and 0 times it is 0.
        """
        step = graph.constant("int8_step", np.float32(1 / _LEVELS))
        if not x.rows:
            peak = self._peak(graph, x)
            return Operand(_quantise(graph, graph.op("Div", x.name, peak), step), step, peak)
        scale = graph.op("Mul", self._peak(graph, x), step)
        # The operator wants a zero point for each scale. A scale divided by 3e38 rounds to 0, which is 128.
        huge = graph.constant("int8_huge", _HUGE)
        zero_points = graph.cached(f"zero points of {x.rows}", lambda: _quantise(graph, scale, huge))
        rows = graph.op("QuantizeLinear", x.name, scale, zero_points, domain=MICROSOFT, axis=0)
        column = graph.op("Unsqueeze", scale, graph.last_axis())
        return Operand(rows, graph.constant("int8_one", np.float32(1)), column)

    def _peak(self, graph: GraphBuilder, x: Activations) -> str:
        """At least the largest magnitude of each row; [rows] of a matrix, else [..., 1]."""
        keep_axis = not x.rows
        if x.lowest is None:
            return graph.row_maximum(graph.op("Abs", x.name), keep_axis=keep_axis)
        # The largest number, or the lowest possible one's magnitude: a pass over the tensor less.
        floor = graph.constant(f"int8_lowest_{-x.lowest}", np.float32(-x.lowest))
        return graph.op("Max", graph.row_maximum(x.name, keep_axis=keep_axis), floor)

    def product(self, graph: GraphBuilder, x: Operand, name: str, weight: Float) -> str:
        """Integer product, dequantised by column inside the op and by row after it."""
        product = _integer_product(graph, x, name, weight, self._weight_peak)
        return graph.op("Mul", product, x.scale)


class Static:
    """Calibrated: one fixed scale for every tensor of activations, found on sample texts.

    Args:
        peaks: name of an activation tensor → the magnitude that becomes ±127; beyond it clips.
        weight_peak: as for `Tokenwise`.
    """

    def __init__(self, peaks: Mapping[str, float], weight_peak: int = FULL_RANGE) -> None:
        self._peaks = peaks
        self._weight_peak = weight_peak

    def operand(self, graph: GraphBuilder, x: Activations) -> Operand:
        """Round to UINT8 with the calibrated scale."""
        peak = max(self._peaks[x.name], float(_TINY))
        step = graph.constant(f"{x.name}_step", np.float32(peak / float(_LEVELS)))
        return Operand(_quantise(graph, x.name, step), step)

    def product(self, graph: GraphBuilder, x: Operand, name: str, weight: Float) -> str:
        """Integer product, dequantised inside the op."""
        return _integer_product(graph, x, name, weight, self._weight_peak)


class Blocks:
    """Weights in 8-bit blocks along the input axis; ONNX Runtime quantises the activations itself.

    Level 4 of ``MatMulNBits`` multiplies in INT8, with one activation scale a row and block.
    """

    def __init__(self, block: int = 32) -> None:
        self._block = block

    def operand(self, graph: GraphBuilder, x: Activations) -> Operand:
        """Nothing to prepare."""
        return Operand(x.name)

    def product(self, graph: GraphBuilder, x: Operand, name: str, weight: Float) -> str:
        """One fused op; B is UINT8 [out, blocks, block] around 128, scales FP32 [out, blocks]."""
        depth, width = weight.shape
        blocks = -(-depth // self._block)
        padded = np.zeros((blocks * self._block, width), np.float32)
        padded[:depth] = weight
        cut = padded.T.reshape(width, blocks, self._block)
        scale = np.maximum(np.abs(cut).max(axis=-1, keepdims=True), _TINY) / _LEVELS
        data = (np.rint(cut / scale) + 128).astype(np.uint8)
        return graph.op(
            "MatMulNBits",
            x.rows,
            graph.constant(f"{name}_blocks", data),
            graph.constant(f"{name}_scale", scale[..., 0].astype(np.float32)),
            domain=MICROSOFT,
            K=depth,
            N=width,
            bits=8,
            block_size=self._block,
            accuracy_level=4,
        )


def quantise_columns(weight: Float, peak: int = FULL_RANGE) -> tuple[npt.NDArray[np.int8], Float]:
    """Symmetric INT8 [in, out] within ±peak, and its FP32 scale [out]."""
    scale = np.maximum(np.abs(weight).max(axis=0), _TINY) / np.float32(peak)
    return np.clip(np.rint(weight / scale), -peak, peak).astype(np.int8), scale.astype(np.float32)


def _zero_point(graph: GraphBuilder) -> str:
    return graph.constant("int8_zero_point", np.uint8(128))


def _quantise(graph: GraphBuilder, x: str, step: str) -> str:
    # ONNX Runtime 1.23 has no kernel for the standard operator of opset 23.
    return graph.op("QuantizeLinear", x, step, _zero_point(graph), domain=MICROSOFT)


def _integer_product(graph: GraphBuilder, x: Operand, name: str, weight: Float, peak: int) -> str:
    # No zero point for the weights: they are symmetric, and absent means 0.
    quantised, scale = quantise_columns(weight, peak)
    return graph.op(
        "MatMulIntegerToFloat",
        x.rows,
        graph.constant(f"{name}_int8", quantised),
        x.step,
        graph.constant(f"{name}_scale", scale),
        _zero_point(graph),
        domain=MICROSOFT,
    )
