"""How the servers compare: shares of the best peer, and the table that shows them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadtest.bench.peers.ways import OURS

Row = Mapping[str, Any]
"""A way of the document; see loadtest/bench/document.py."""


def heads(unit: str) -> tuple[str, ...]:
    """The heads of the columns; ``unit`` is what is computed, such as ``text``."""
    return (
        "", f"{unit}s/s", "min–max", "of ceiling", "of best peer", "p50 ms", "p99/p50", f"CPU ms/{unit}",
    )  # fmt: skip


def scenarios(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows, those that were measured with the same model at the same concurrency together."""
    found: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["facts"]["null"], row["facts"]["connections"]), []).append(row)
    return list(found.values())


def comparison(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Cells of a line for each server in each scenario."""
    for scenario in scenarios(rows):
        best = best_peer(scenario)
        for row in scenario:
            medians = row["medians"]
            rates = [sample["rate"] for sample in row["rounds"]]
            # The ceiling is the real model's.
            ceiling = None if row["facts"]["null"] else medians.get("of_ceiling")
            yield [
                row["name"],
                f"{medians['rate']:.0f}",
                f"{min(rates):.0f}–{max(rates):.0f}",
                "–" if ceiling is None else f"{ceiling:.2f}",
                "–" if best is None else f"{share(row, best):.2f}",
                f"{medians['p50_ms']:.1f}",
                f"{medians['p99_ms'] / medians['p50_ms']:.1f}",
                f"{medians['server_cpu_s']:.2f}",
            ]


def our_shares(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    """For each scenario its name and our rate as a share of the best peer's."""
    for scenario in scenarios(rows):
        (ours,) = (row for row in scenario if row["facts"]["server"] == OURS)
        best = best_peer(scenario)
        if best is None:
            continue
        where = ours["name"].removesuffix(f", {OURS}")
        yield f"{where}: share of the best peer, {best['facts']['server']}", share(ours, best)


def best_peer(scenario: Sequence[Row]) -> Row | None:
    """The peer with the highest median rate, if there is one."""
    peers = (row for row in scenario if row["facts"]["server"] != OURS)
    return max(peers, key=lambda row: float(row["medians"]["rate"]), default=None)


def share(row: Row, other: Row) -> float:
    """The median over the rounds of the ratio of their rates.

    Round by round: what slowed a whole round down slowed both down.
    """
    pairs = zip(row["rounds"], other["rounds"], strict=True)
    return statistics.median(float(one["rate"]) / float(another["rate"]) for one, another in pairs)
