"""Which budget of groups was best over HTTP."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tools.gpu_check.grid import BUDGET
from tools.gpu_check.models import USUAL_BUDGET


def compare_budgets(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each budget beside the usual one, of the rows of a bench.

    Returns:
        For each budget, the usual one first: ``budget``, its words; ``of_usual``, its median rate divided
        by that of the usual budget; ``surely``, its slowest round divided by the fastest of the usual budget.
        Both are geometric means over the loads. Only loads count that were measured with all budgets;
        without any, nothing is returned.
    """
    rates: dict[tuple[int, int], dict[str, list[float]]] = {}
    for row in rows:
        if row["way"] == BUDGET and "rate" in row:
            load = rates.setdefault((row["tokens"], row["at_once"]), {})
            load.setdefault(row["budget"], []).append(float(row["rate"]))
    budgets = list(dict.fromkeys(row["budget"] for row in rows if row["way"] == BUDGET))
    whole = [load for load in rates.values() if set(load) == set(budgets)]
    usual = str(USUAL_BUDGET)
    if not whole or usual not in budgets:
        return []
    return [
        {
            "budget": budget,
            "of_usual": statistics.geometric_mean(
                statistics.median(load[budget]) / statistics.median(load[usual]) for load in whole
            ),
            "surely": statistics.geometric_mean(min(load[budget]) / max(load[usual]) for load in whole),
        }
        for budget in budgets
    ]


def verdict(compared: Sequence[Mapping[str, Any]]) -> str:
    """Which budget had the most texts a second, as a sentence; empty if none were compared."""
    if len(compared) < 2:
        return ""
    best = max(compared, key=lambda each: float(each["of_usual"]))
    if best["surely"] <= 1:
        return f"No budget was faster than {USUAL_BUDGET}, the default, in every round."
    return (
        f"{best['budget'].capitalize()} gave the most texts a second: {best['of_usual']:.2f} of the "
        f"default's ({USUAL_BUDGET}), and more than it in every round."
    )
