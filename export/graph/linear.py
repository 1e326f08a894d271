"""``x @ W`` in each precision; the bias is left to the op that follows, which adds it for free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from export.checkpoint import Array
from export.graph.builder import MICROSOFT, GraphBuilder


@dataclass(frozen=True)
class Operand:
    """A tensor to be multiplied; for INT8 also its quantised rows, shared by several products."""

    name: str
    rows: str = ""
    scale: str = ""


class Matmul(Protocol):
    """How a precision multiplies: prepare the left side once, then use it as often as needed."""

    dtype: type[np.floating[Any]]

    def operand(self, graph: GraphBuilder, x: str) -> Operand:
        """Prepare the activations ``x`` [..., in]."""

    def product(self, graph: GraphBuilder, x: Operand, name: str, weight: Array) -> str:
        """Multiply with a constant weight [in, out]; returns [..., out] in ``dtype``."""


class FloatMatmul:
    """FP32 or FP16 weights and activations."""

    def __init__(self, dtype: type[np.floating[Any]]) -> None:
        self.dtype = dtype

    def operand(self, graph: GraphBuilder, x: str) -> Operand:
        """Nothing to prepare."""
        return Operand(x)

    def product(self, graph: GraphBuilder, x: Operand, name: str, weight: Array) -> str:
        """A plain MatMul."""
        return graph.op("MatMul", x.name, graph.constant(name, weight.astype(self.dtype)))


class TokenwiseInt8Matmul:
    """Dynamic INT8 with one activation scale per token, so that no text depends on another.

    Per-tensor dynamic quantisation takes one scale over the whole batch, padding included,
    and the same sentence then scores differently beside other neighbours (ARCHITECTURE.md).
    Activations are UINT8 with zero point 128, because MLAS runs signed ones about six times
    slower on x86; weights are symmetric INT8 with one scale per column.
    """

    dtype: type[np.floating[Any]] = np.float32

    def operand(self, graph: GraphBuilder, x: str) -> Operand:
        """Scale each row to ±127 and round it to UINT8."""
        peak = graph.op("ReduceMax", graph.op("Abs", x), axes=[-1], keepdims=1)
        # An all-zero row must not divide by zero; it quantises to the zero point whatever the scale.
        peak = graph.op("Max", peak, graph.constant("smallest_peak", np.float32(1e-20)))
        stretch = graph.op("Div", graph.constant("int8_peak", np.float32(127)), peak)
        one = graph.constant("one", np.float32(1))
        zero_point = graph.constant("zero_point", np.uint8(128))
        rows = graph.op("QuantizeLinear", graph.op("Mul", x, stretch), one, zero_point)
        scale = graph.op("Mul", peak, graph.constant("int8_step", np.float32(1 / 127)))
        return Operand(x, rows, scale)

    def product(self, graph: GraphBuilder, x: Operand, name: str, weight: Array) -> str:
        """Integer product, dequantised by column inside the op and by row after it."""
        quantised, scale = quantise_columns(weight)
        product = graph.op(
            "MatMulIntegerToFloat",
            x.rows,
            graph.constant(name, quantised),
            graph.constant("one", np.float32(1)),
            graph.constant(f"{name}_scale", scale),
            graph.constant("zero_point", np.uint8(128)),
            graph.constant(f"{name}_zero", np.zeros(scale.shape, np.int8)),
            domain=MICROSOFT,
        )
        return graph.op("Mul", product, x.scale)


def quantise_columns(weight: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """Symmetric INT8 [in, out] and its FP32 scale [out]; −128 stays unused."""
    scale = np.maximum(np.abs(weight).max(axis=0), np.float32(1e-20)) / np.float32(127)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale.astype(np.float32)
