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

    def operand(self, graph: GraphBuilder, x: str) -> Operand:
        """Prepare the activations ``x`` FP32 [..., in]."""

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

    def operand(self, graph: GraphBuilder, x: str) -> Operand:
        """Scale each row to ±127 and round it to UINT8."""
        peak = graph.row_maximum(graph.op("Abs", x))
        # An all-zero row must not divide by zero; it becomes the zero point at any scale.
        peak = graph.op("Max", peak, graph.constant("int8_smallest_peak", _TINY))
        step = graph.constant("int8_step", np.float32(1 / _LEVELS))
        rows = graph.op("QuantizeLinear", graph.op("Div", x, peak), step, _zero_point(graph))
        return Operand(rows, step, peak)

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

    def operand(self, graph: GraphBuilder, x: str) -> Operand:
        """Round to UINT8 with the calibrated scale."""
        step = graph.constant(f"{x}_step", np.float32(max(self._peaks[x], float(_TINY)) / float(_LEVELS)))
        return Operand(graph.op("QuantizeLinear", x, step, _zero_point(graph)), step)

    def product(self, graph: GraphBuilder, x: Operand, name: str, weight: Float) -> str:
        """Integer product, dequantised inside the op."""
        return _integer_product(graph, x, name, weight, self._weight_peak)


class Blocks:
    """Weights in 8-bit blocks along the input axis; ONNX Runtime quantises the activations itself.

    Level 4 of ``MatMulNBits`` multiplies in INT8, with one activation scale a row and block.
    """

    def __init__(self, block: int = 32) -> None:
        self._block = block

    def operand(self, graph: GraphBuilder, x: str) -> Operand:
        """Nothing to prepare."""
        return Operand(x)

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
