from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tools import capacity_doc

ROOT = Path(__file__).parents[2]


def way(section: str, name: str, facts: dict[str, int], **medians: float) -> dict[str, Any]:
    return {"section": section, "name": name, "facts": facts, "medians": medians}


def bench() -> dict[str, Any]:
    cost = {"p50_ms": 10.0, "call_texts": 4.0}
    return {
        "environment": {"cpu": "A CPU", "cores": 2, "packages": {"onnxruntime": "1.0"}},
        "settings": {"precision": "int8", "rounds": 5, "seconds": 3.0},
        "ways": [
            way(
                "http", "1 connection", {"connections": 1}, rate=100, gateway_cpu_s=1, triton_cpu_s=5, **cost
            ),
            way(
                "http",
                "128 connections",
                {"connections": 128},
                rate=700,
                gateway_cpu_s=0.15,
                triton_cpu_s=2.4,
                **cost,
            ),
            way(
                "null",
                "128 connections",
                {"connections": 128},
                rate=7000,
                gateway_cpu_s=0.12,
                triton_cpu_s=0.1,
                **cost,
            ),
            way("null", "no gateway", {"calls": 128, "gateway": 0}, rate=9, triton_cpu_s=0.1, **cost),
            way("length", "8 tokens, 1 connection", {"tokens": 8, "connections": 1}, rate=200),
            way("length", "8 tokens, 32 connections", {"tokens": 8, "connections": 32}, rate=1000),
        ],
    }


def test_the_tables_hold_the_figures_of_the_bench() -> None:
    part = capacity_doc.measured(bench())
    assert "| 128 connections | 700 | 10.0 | 4.0 | 0.150 | 2.400 |" in part
    assert "| 128 connections | 7,000 | 10.0 | 4.0 | 0.120 | 0.100 |" in part
    # Two cores for a thousand texts a second.
    assert "| 8 | 1,000 | 2.00 |" in part
    assert "no gateway" not in part
    assert "8 tokens" not in part


def test_the_example_follows_the_formula() -> None:
    part = capacity_doc.measured(bench())
    # 2,000 texts/s × 2.4 ms = 4.8 cores, at 60 % of the cores 8; × 0.15 ms = 0.3 cores, 0.5.
    assert "2,000 × 2.4 ms / 0.6 = **8 cores for Triton** (2 pods of four)" in part
    assert "2,000 × 0.15 ms / 0.6 = **1 for gateways**" in part


def test_a_bench_without_a_section_names_it() -> None:
    document = bench()
    document["ways"] = [row for row in document["ways"] if row["section"] != "length"]
    with pytest.raises(ValueError, match="length"):
        capacity_doc.measured(document)


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    page = f"before\n{capacity_doc.BEGIN}\nold\n{capacity_doc.END}\nafter\n"
    new = capacity_doc.replaced(page, "new")
    assert new == f"before\n{capacity_doc.BEGIN}\nnew\n{capacity_doc.END}\nafter\n"
    assert capacity_doc.replaced(new, "new") == new


def test_the_page_has_the_marks_and_something_between_them() -> None:
    page = (ROOT / capacity_doc.PAGE).read_text(encoding="utf-8")
    assert page.count(capacity_doc.BEGIN) == page.count(capacity_doc.END) == 1
    between = page.partition(capacity_doc.BEGIN)[2].partition(capacity_doc.END)[0]
    assert "cores for Triton" in between
