"""The arithmetic of the bench: percentiles, medians over rounds, a straight line."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

Sample = dict[str, float]
"""What one measurement of a few seconds found. ``rate`` is texts a second and ``texts`` their number;
latencies (``p50_ms``, ``p99_ms``) are those of requests; a key ending in ``_cpu_s`` is per 1,000 texts."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all do not exceed (nearest rank); NaN without values."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def timed(latencies_s: Iterable[float], seconds: float, texts_each: int = 1) -> Sample:
    """Rate and latencies of requests that were answered within ``seconds``, each of ``texts_each`` texts."""
    ordered = sorted(latencies_s)
    texts = len(ordered) * texts_each
    return {
        "rate": texts / seconds,
        "texts": texts,
        "p50_ms": 1000 * percentile(ordered, 0.5),
        "p99_ms": 1000 * percentile(ordered, 0.99),
    }


def medians(samples: Sequence[Sample]) -> Sample:
    """The median of each key that every sample has."""
    shared = [key for key in samples[0] if all(key in sample for sample in samples)]
    return {key: statistics.median(sample[key] for sample in samples) for key in shared}


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Least squares: slope, intercept and R² of at least two different points."""
    slope, intercept = statistics.linear_regression(x, y)
    return slope, intercept, statistics.correlation(x, y) ** 2
