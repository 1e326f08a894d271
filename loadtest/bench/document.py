"""The bench as one JSON document: every figure, and the few that sum it up."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.bench.figures import fit_line
from loadtest.bench.invariance import Invariance
from loadtest.bench.peers import table as peers_table
from loadtest.bench.peers import ways as peers
from loadtest.bench.rounds import Result

FORMAT = 1
_CEILINGS = ("one by one, all cores", "groups of like length, all cores")
Row = dict[str, Any]


def as_document(
    results: Sequence[Result],
    environment: Mapping[str, Any],
    settings: Mapping[str, Any],
    invariance: Invariance,
    memory_mb: Mapping[str, float],
    left_out: Sequence[str] = (),
) -> dict[str, Any]:
    """What ``bench.json`` holds; plain types throughout, NaN nowhere.

    Args:
        results: in the order in which they are shown.
        environment: the machine and the versions, without names or paths.
        settings: rounds, seconds, load generator and the like.
        invariance: what was compared while measuring HTTP.
        memory_mb: resident memory at the end, by program.
        left_out: one sentence for each thing that could not be measured.
    """
    ceiling = _ceiling(results)
    rows = [_row(result, ceiling) for result in results]
    compared = {"answers": invariance.answers, "largest": invariance.largest, "bound": invariance.bound}
    document = {
        "format": FORMAT,
        "environment": dict(environment),
        "settings": dict(settings),
        "ceiling": None if ceiling is None else ceiling.medians["rate"],
        "ways": rows,
        "invariance": compared if invariance.answers else None,
        "memory_mb": {name: round(value, 1) for name, value in memory_mb.items()},
        "length_fit": _length_fit(rows),
        "left_out": list(left_out),
    }
    return document | {"summary": _summary(rows, document)}


def _ceiling(results: Sequence[Result]) -> Result | None:
    """The better of the two ways that use all cores."""
    ways = [result for result in results if result.section == "ceiling" and result.name in _CEILINGS]
    return max(ways, key=lambda way: way.medians["rate"], default=None)


def _row(result: Result, ceiling: Result | None) -> Row:
    medians = result.medians
    if ceiling is not None:
        # Round by round: what slowed a whole round down slowed its ceiling down as well.
        shares = [
            one["rate"] / whole["rate"] for one, whole in zip(result.rounds, ceiling.rounds, strict=True)
        ]
        medians["of_ceiling"] = statistics.median(shares)
    return {
        "section": result.section,
        "name": result.name,
        "facts": dict(result.facts),
        "medians": _plain(medians),
        "rounds": [_plain(sample) for sample in result.rounds],
    }


def _plain(sample: Mapping[str, float]) -> dict[str, float]:
    """Six significant digits; a figure that is not a number is no figure."""
    return {key: float(f"{value:.6g}") for key, value in sample.items() if not math.isnan(value)}


def _length_fit(rows: Sequence[Row]) -> dict[str, float] | None:
    """Milliseconds of a lone text as a straight line of its tokens."""
    points = [
        (row["facts"]["tokens"], row["medians"]["p50_ms"])
        for row in rows
        if row["section"] == "length" and row["facts"]["connections"] == 1
    ]
    if len(points) < 2:
        return None
    slope, intercept, r2 = fit_line(*zip(*points, strict=True))
    return {"ms_per_token": slope, "ms_at_0": intercept, "r2": r2}


def _summary(rows: Sequence[Row], document: Mapping[str, Any]) -> list[list[Any]]:
    """``[what, figure]`` of everything that the rows can show."""
    found: list[list[Any]] = []

    def add(what: str, over: float | None, under: float | None = 1.0) -> None:
        if over is not None and under:
            found.append([what, over / under])

    def http(key: str, connections: int) -> float | None:
        return find(rows, "http", key, connections=connections, workers=1)

    add("HTTP, 32 connections: share of the ceiling", http("of_ceiling", 32))
    add("HTTP, 128 connections: share of the ceiling", http("of_ceiling", 128))
    add("HTTP, 128 connections against 32: texts/s", http("rate", 128), http("rate", 32))
    add("HTTP, 128 connections: p99 / p50", http("p99_ms", 128), http("p50_ms", 128))
    add("HTTP, 32 connections: texts/s for each watt of the GPU", http("rate_per_watt", 32))
    add("HTTP, 128 connections: texts/s for each watt of the GPU", http("rate_per_watt", 128))
    alone, own = http("p50_ms", 1), _median(rows, "ceiling", "one text at a time, one core", "p50_ms")
    if alone is not None and own is not None:
        add("one connection: ms that gateway and Triton add at p50", alone - own)
    null = [row for row in rows if row["section"] == "null"]
    if null:
        connected = [row for row in null if "connections" in row["facts"]]
        best = max(connected, key=lambda row: float(row["medians"]["rate"]))
        add(f"null model: most texts/s ({best['name']})", best["medians"]["rate"])
        at_128 = find(rows, "null", "rate", connections=128, workers=1)
        add("null model, 128 connections, one gateway process: texts/s", at_128)
        add(
            "the same against one gRPC call a text through the gateway",
            at_128,
            find(rows, "null", "rate", calls=128, gateway=1),
        )
        add(
            "the same against one gRPC call a text without gateway",
            at_128,
            find(rows, "null", "rate", calls=128, gateway=0),
        )
    for what, share in peers_table.our_shares([row for row in rows if row["section"] == peers.SECTION]):
        add(what, share)
    for name in _CEILINGS:
        own, fp32 = _median(rows, "ceiling", name), _median(rows, "precision", f"FP32, {name}")
        add(f"{document['settings'].get('precision', '')} against FP32, {name}", own, fp32)
    if document["length_fit"]:
        add("ms per token, one connection", document["length_fit"]["ms_per_token"])
        add("R² of ms against tokens", document["length_fit"]["r2"])
    return found


def find(rows: Sequence[Row], section: str, key: str, **facts: int) -> float | None:
    """The median of the way with exactly these facts, if it was measured."""
    for row in rows:
        if row["section"] == section and row["facts"] == facts:
            value = row["medians"].get(key)
            return None if value is None else float(value)
    return None


def _median(rows: Sequence[Row], section: str, name: str, key: str = "rate") -> float | None:
    for row in rows:
        if (row["section"], row["name"]) == (section, name):
            return float(row["medians"][key])
    return None
