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
GROUPS = 12  # a model is built and asked for each, which takes seconds


def build_int8(
    model: onnx.ModelProto, scheme: str, rows: Rows, *, saturates: bool, wide: Collection[str] = ()
) -> onnx.ModelProto:
    """The INT8 model of an FP32 one.

    Args:
        model: FP32, as `quantise` takes it.
        scheme: one of `export.plan.SCHEMES`.
        rows: token ids of calibration texts; only the static schemes use them.
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
    return quantise(
        model, Static(calibrate.activation_ranges(model, rows, method), peak), wide=wide, metadata=metadata
    )


def sensitivity(
    model: onnx.ModelProto,
    build: Callable[[Collection[str]], onnx.ModelProto],
    score: Callable[[onnx.ModelProto], npt.NDArray[np.float64]],
    advance: Callable[[int, int], None],
) -> dict[tuple[str, ...], float]:
    """How much rounding a few neighbouring weights alone moves the scores.

    Args:
        model: FP32.
        build: makes the INT8 model in which the named weights stay FP32.
        score: probabilities [N, labels] of the sample texts.
        advance: called with the number of groups done and the total.

    Returns:
        Names of weights → mean |Δp|, largest first; at most `GROUPS` entries, the word table is one.
    """
    names = quantisable(model)
    step = -(-len(names) // GROUPS)
    groups = [tuple(names[:1]), *(tuple(names[i : i + step]) for i in range(1, len(names), step))]
    wanted = score(model)
    found = {}
    for done, group in enumerate(groups, 1):
        rounded = score(build([name for name in names if name not in group]))
        found[group] = float(np.abs(rounded - wanted).mean())
        advance(done, len(groups))
    return dict(sorted(found.items(), key=lambda item: -item[1]))
