"""The same encoder in plain numpy, one text at a time: what every artefact is compared with.

Written from the formulas, not from the graph, so that a mistake in one does not hide in the
other. Float64 throughout; slow and simple on purpose. A number that FP32 cannot hold becomes
NaN, as no artefact can follow there.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from export.checkpoint.model import Encoder, Linear, Norm

Array = npt.NDArray[np.float64]
_LARGEST = float(np.finfo(np.float32).max)
_erf = np.frompyfunc(math.erf, 1, 1)


def logits(encoder: Encoder, ids: list[int], types: list[int] | None = None) -> Array:
    """Logits [labels] of one text given its token ids, special tokens included; NaN past FP32's range.

    ``types``: the token types of a pair, all 0 without them; only an encoder that reads them takes any.
    """
    x = encoder.words[ids].astype(np.float64) + encoder.positions[: len(ids)]
    if encoder.types is not None:
        x = x + encoder.types[types or [0] * len(ids)]
    x = _within_fp32(x)
    x = _normalise(x, encoder.embedding_norm, encoder.epsilon)
    for layer in encoder.layers:
        q, k, v = (_heads(_apply(x, part), encoder.heads) for part in (layer.query, layer.key, layer.value))
        weights = _softmax(_within_fp32(q @ k.swapaxes(1, 2)) / math.sqrt(q.shape[-1]))
        context = (weights @ v).swapaxes(0, 1).reshape(x.shape)
        x = _normalise(x + _apply(context, layer.output), layer.attention_norm, encoder.epsilon)
        wide = _apply(x, layer.expand)
        wide = wide * 0.5 * (1.0 + _erf(wide / math.sqrt(2.0)).astype(np.float64))
        x = _normalise(x + _apply(wide, layer.contract), layer.output_norm, encoder.epsilon)
    pooled = _apply(x[0], encoder.dense)
    pooled = np.tanh(pooled) if encoder.activation == "tanh" else np.maximum(pooled, 0.0)
    return _apply(pooled, encoder.classifier)


def _apply(x: Array, linear: Linear) -> Array:
    return _within_fp32(x @ linear.weight.astype(np.float64) + linear.bias)


def _within_fp32(x: Array) -> Array:
    return np.where(np.abs(x) <= _LARGEST, x, np.nan)


def _heads(x: Array, heads: int) -> Array:
    return x.reshape(x.shape[0], heads, -1).swapaxes(0, 1)


def _softmax(x: Array) -> Array:
    e: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e


def _normalise(x: Array, norm: Norm, epsilon: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    squares = _within_fp32((centred**2).sum(axis=-1, keepdims=True))
    deviation = np.sqrt(squares / x.shape[-1] + epsilon)
    return _within_fp32(centred / deviation * norm.gamma + norm.beta)
