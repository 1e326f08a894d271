"""The INT8 schemes by name, and the sensitivity of single weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from export.quantise import calibrate
from export.quantise.rewrite import quantisable, quantise
from export.quantise.schemes import FULL_RANGE, REDUCED_RANGE, Blocks, Static, Tokenwise

Rows = Sequence[Sequence[int]]
SCHEMES = ("token", "static-minmax", "static-percentile", "static-entropy", "static-smoothed", "blocks")


def build_int8(
    model: onnx.ModelProto, scheme: str, rows: Rows, *, saturates: bool, wide: Collection[str] = ()
) -> onnx.ModelProto:
    """The INT8 model of an FP32 one.

    Args:
        model: FP32, as `quantise` takes it.
        scheme: one of `SCHEMES`.
        rows: token ids of calibration texts; only the static schemes look at them.
        saturates: whether this CPU's INT8 products saturate (no VNNI); the weights then use half
            their range. ``MatMulNBits`` never saturates.
        wide: names of weights that stay FP32.
    """
    peak = REDUCED_RANGE if saturates else FULL_RANGE
    metadata = {"int8": scheme, "weight_peak": str(peak), "wide": " ".join(sorted(wide))}
    if scheme == "token":
        return quantise(model, Tokenwise(peak), wide=wide, metadata=metadata)
    if scheme == "blocks":
        return quantise(model, Blocks(), wide=wide, metadata=metadata)
    method = scheme.removeprefix("static-")
    if method == "smoothed":
        model, method = calibrate.smooth(model, rows), "percentile"
    return quantise(model, Static(calibrate.peaks(model, rows, method), peak), wide=wide, metadata=metadata)


def sensitivity(
    model: onnx.ModelProto,
    build: Callable[[Collection[str]], onnx.ModelProto],
    score: Callable[[onnx.ModelProto], npt.NDArray[np.float64]],
) -> dict[str, float]:
    """How much rounding one weight alone moves the scores: weight → mean |Δp|, largest first.

    Args:
        model: FP32.
        build: makes the INT8 model in which the named weights stay FP32.
        score: probabilities [N, labels] of the sample texts.
    """
    names = quantisable(model)
    wanted = score(model)
    found = {
        name: float(np.abs(score(build([other for other in names if other != name])) - wanted).mean())
        for name in names
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))
