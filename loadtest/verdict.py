"""Thresholds on a summary: what was asked for, and in words what was missed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.checks import WRONG

_LATE_MS = 100.0
_DRIFT = 1.5
_SENT_SHARE = 0.97
_SIGMAS = 4.0
"""How far independent arrivals may be from their mean: about one run in 30,000 is further below it."""


@dataclass(frozen=True)
class VerdictLimits:
    """What a run must keep; latencies in milliseconds are of good answers, from the intended arrival."""

    p50_ms: float = 250.0
    p95_ms: float = 500.0
    p99_ms: float = 1000.0
    error_share: float = 0.0
    """Of all requests; wrong answers are never forgiven."""
    achieved_share: float = 0.99
    """Good answers as a share of the arrivals that were due; open loop only."""


def complaints(summary: Mapping[str, Any], limits: VerdictLimits) -> list[str]:
    """What was missed, each as a sentence; empty if the run passes."""
    found = [*_stopped(summary)]
    if not summary["requests"]["due"]:
        return found or ["nothing was asked"]
    found += [*_errors(summary, limits), *_latencies(summary, limits)]
    if summary["loop"] == "open":
        found += [*_rate(summary, limits)]
    if summary["shape"] == "soak":
        found += [*_drift(summary["timeline"])]
    return found


def _stopped(summary: Mapping[str, Any]) -> Iterator[str]:
    """A part of a run is no evidence for the rest."""
    after_s = summary.get("stopped_after_s")
    if after_s is not None:
        yield f"stopped by a signal after {after_s:.1f} of {summary['duration_s']:g} s"


def _errors(summary: Mapping[str, Any], limits: VerdictLimits) -> Iterator[str]:
    requests, errors = summary["requests"], summary["errors"]
    wrong = {name: count for name, count in errors.items() if name in WRONG}
    if wrong:
        yield f"wrong answers: {_listed(wrong)}"
    share = requests["errors"] / requests["due"]
    if share > limits.error_share:
        yield (
            f"errors: {share:.2%} of {requests['due']} requests, allowed are {limits.error_share:.2%}: "
            f"{_listed(errors)}"
        )


def _listed(errors: Mapping[str, int]) -> str:
    ordered = sorted(errors.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} × {name}" for name, count in ordered)


def _latencies(summary: Mapping[str, Any], limits: VerdictLimits) -> Iterator[str]:
    for name in ("p50", "p95", "p99"):
        found, allowed = summary["latency_ms"][name], getattr(limits, f"{name}_ms")
        if found is None:
            yield "no good answer"
            return
        if found > allowed:
            yield f"latency: {name} is {found:.0f} ms, allowed are {allowed:.0f} ms"


def _rate(summary: Mapping[str, Any], limits: VerdictLimits) -> Iterator[str]:
    requests = summary["requests"]
    achieved = requests["good"] / requests["due"]
    if achieved < limits.achieved_share:
        yield (
            f"rate: {achieved:.1%} of the wanted {summary['wanted_per_s']:.0f} requests/s were answered well "
            f"({summary['good_per_s']:.0f}/s), at least {limits.achieved_share:.1%} must be"
        )
    yield from _generators(summary)


def _generators(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the load generator itself did not do; the server must not be judged by it."""
    asked = (summary["asked_per_s"] or 0.0) * summary["duration_s"]
    sent = summary["wanted_per_s"] * summary["duration_s"]
    whole = summary.get("stopped_after_s") is None
    if whole and sent < _SENT_SHARE * asked and sent < asked - _SIGMAS * math.sqrt(asked):
        yield f"load generator: it came to {sent:.0f} of the {asked:.0f} requests that were asked for"
    expected, started = summary["generator"]["expected"], summary["generator"]["started"]
    if expected is not None and started < expected:
        yield f"load generator: {expected - started} of {expected} never began"
    late = summary["generator"]["late_p99_ms"]
    if late is not None and late > _LATE_MS:
        yield (
            f"load generator: it could not keep up: its own delay was {late:.0f} ms at p99, allowed are "
            f"{_LATE_MS:.0f} ms (give it more cores or workers)"
        )
    missing = summary["generator"]["started"] - summary["generator"]["finished"]
    if missing:
        yield f"load generator: {missing} of {summary['generator']['started']} did not finish"


def _drift(timeline: list[Mapping[str, Any]]) -> Iterator[str]:
    """A soak whose last third is slower than its first leaks something."""
    medians = [second["p50_ms"] for second in timeline if second["p50_ms"] is not None]
    third = len(medians) // 3
    if not third:
        return
    first, last = (sorted(part)[third // 2] for part in (medians[:third], medians[-third:]))
    if last > _DRIFT * first:
        yield f"soak: the median rose from {first:.0f} to {last:.0f} ms between the first and the last third"
