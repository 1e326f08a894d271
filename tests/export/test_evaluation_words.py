"""A report calls what a model is asked about by its name: texts of a classifier, pairs of a reranker."""

from __future__ import annotations

from typing import Any

import pytest

from export.evaluation import plots, report_text


def document(queries: int) -> dict[str, Any]:
    """What the pages about speed read of a report."""
    speed = {
        "texts": 30,
        "load_ms": 1.0,
        "alone_ms": 1.0,
        "alone_p99_ms": 1.0,
        "alone_per_second": 1000.0,
        "alone_ratio": 1.0,
        "grouped_per_second": 2000.0,
        "grouped_ratio": 1.0,
        "ms_by_length": {"8": 1.0, "16": 2.0},
    }
    agreement = {"share": 1.0, "shift_histogram": [1, 2]}
    ranking = {"kendall_tau": 1.0, "relevance": None} if queries else None
    found = {"speed": speed, "agreement": agreement, "ranking": ranking}
    return {
        "examples": {"queries": queries, "labelled": False},
        "reference": "fp32",
        "settings": {"timing": {"rounds": 3}},
        "shift_histogram_edges": [0.001, 0.01, 0.1],
        "artefacts": {"fp32": found, "int8": found},
    }


@pytest.mark.parametrize(("queries", "unit"), [(0, "text"), (7, "pair")])
def test_tables_and_pictures_of_speed_name_what_was_timed(queries: int, unit: str) -> None:
    given = document(queries)
    speed = report_text._speed(given)
    assert f"same 30 {unit}s of all lengths" in speed
    assert f"ms a {unit}, batch 1" in speed
    assert report_text._lengths(given).startswith(f"Milliseconds a {unit} by its tokens")
    (axes,) = plots._accuracy_against_speed(given).axes
    assert axes.get_xlabel() == f"{unit}s per second, groups of like length"
    (axes,) = plots._speed_by_length(given).axes
    assert (axes.get_title(), axes.get_ylabel()) == (
        f"Speed by length, one {unit} a run, one thread",
        f"milliseconds per {unit}",
    )
    (axes,) = plots._shift_histogram(given).axes
    assert axes.get_xlabel().startswith(f"|Δp| of a {unit}'s most moved label")
    assert axes.get_ylabel() == f"{unit}s"
