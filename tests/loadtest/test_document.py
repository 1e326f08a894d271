"""The document, its tables, pictures and comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench.compare import as_table, changes, read_document
from loadtest.bench.document import as_document
from loadtest.bench.figures import Sample
from loadtest.bench.invariance import Invariance
from loadtest.bench.plots import write_plots
from loadtest.bench.report import Table, as_markdown, tables
from loadtest.bench.rounds import Result
from loadtest.tables import markdown_table
from tests.support.bench_settings import ENVIRONMENT
from tests.support.bench_settings import INT8_SETTINGS as SETTINGS


def _rounds(*rates: float, **more: float) -> list[Sample]:
    return [{"rate": rate, "texts": 3 * rate, **more} for rate in rates]


def _results(factor: float = 1.0) -> list[Result]:
    """The second round is a slow minute: everything takes twice as long."""

    def http(connections: int, *rates: float) -> Result:
        sample = _rounds(*(rate * factor for rate in rates), p50_ms=10.0, p99_ms=20.0, gateway_cpu_s=0.2)
        return Result(
            "http", f"{connections} connections", {"connections": connections, "workers": 1}, sample
        )

    null = Result(
        "null",
        "128 connections",
        {"connections": 128, "workers": 1},
        _rounds(9000, 9000, 9000, p50_ms=1, p99_ms=2),
    )
    plain = Result("null", "no gateway", {"calls": 128, "gateway": 0}, _rounds(3000, 3000, 3000))
    lengths = [
        Result(
            "length",
            f"{tokens} tokens, {connections}",
            {"tokens": tokens, "connections": connections},
            _rounds(100, 90, 80, p50_ms=2 + tokens / 10),
        )
        for tokens in (8, 64, 512)
        for connections in (1, 32)
    ]
    return [
        Result("ceiling", "one text at a time, one core", {}, _rounds(300, 150, 300, p50_ms=4.0, p99_ms=5.0)),
        Result("ceiling", "one by one, all cores", {}, _rounds(450, 225, 460)),
        Result("ceiling", "groups of like length, all cores", {}, _rounds(500, 250, 520)),
        Result("precision", "FP32, one by one, all cores", {}, _rounds(225, 110, 220)),
        http(1, 160, 80, 160),
        http(32, 450, 225, 468),
        http(128, 460, 230, 470),
        null,
        plain,
        *lengths,
    ]


def _document(factor: float = 1.0) -> dict[str, Any]:
    invariance = Invariance([])
    invariance.answers, invariance.largest = 1234, 3.1e-5
    memory = {"gateway": 91.234, "triton": 400.0}
    return as_document(_results(factor), ENVIRONMENT, SETTINGS, invariance, memory, ["GPU: there is none"])


def test_shares_are_taken_round_by_round_of_the_better_way_in_process() -> None:
    document = _document()
    assert document["ceiling"] == 500
    shares = {row["name"]: row["medians"]["of_ceiling"] for row in document["ways"]}
    assert shares["32 connections"] == pytest.approx(0.9)
    assert shares["groups of like length, all cores"] == 1.0


def test_the_summary_shows_the_cost_of_serving() -> None:
    found = {what: value for what, value in _document()["summary"]}
    assert found["HTTP, 32 connections: share of the ceiling"] == pytest.approx(0.9)
    assert found["HTTP, 128 connections against 32: texts/s"] == pytest.approx(460 / 450)
    assert found["HTTP, 128 connections: p99 / p50"] == 2.0
    assert found["one connection: ms that gateway and Triton add at p50"] == 6.0
    assert found["the same against one gRPC call a text without gateway"] == 3.0
    assert found["INT8 against FP32, one by one, all cores"] == pytest.approx(450 / 220)
    assert found["ms per token, one connection"] == pytest.approx(0.1)
    assert found["R² of ms against tokens"] == pytest.approx(1.0)


def test_what_was_not_measured_is_not_there() -> None:
    only = [result for result in _results() if result.section == "http"]
    document = as_document(only, ENVIRONMENT, SETTINGS, Invariance([]), {})
    assert document["ceiling"] is document["length_fit"] is document["invariance"] is None
    assert all("of_ceiling" not in row["medians"] for row in document["ways"])
    assert [table.title for table in tables(document)] == ["Gateway over HTTP", "Summary"]


def _protocols(way: int, *rates: float, cpu: float = 0.0) -> Result:
    sample = _rounds(*rates, p50_ms=10.0 * (way + 1), gateway_cpu_s=cpu)
    return Result("protocols", "", {"calls": 8, "call_texts": 32, "way": way}, sample)


def test_protocols_are_compared_round_by_round() -> None:
    results = [
        _protocols(0, 400, 200, 400, cpu=0.1),
        _protocols(1, 300, 150, 380, cpu=0.15),
        _protocols(2, 600, 300, 600),
    ]
    document = as_document(results, ENVIRONMENT, SETTINGS, Invariance([]), {})
    _, beside, *_ = tables(document)
    assert beside.title == "gRPC beside HTTP"
    (row,) = beside.rows
    assert len(row) == len(beside.heads)
    found = dict(zip(beside.heads, row, strict=True))
    assert found["calls at once × texts"] == "8 × 32"
    assert (found["gRPC / HTTP"], found["gRPC / Triton"], found["CPU gRPC / HTTP"]) == (
        "0.75",
        "0.50",
        "1.50",
    )
    assert (found["HTTP texts/s"], found["gRPC texts/s"], found["Triton texts/s"]) == ("400", "300", "600")
    assert (found["HTTP p50 ms"], found["gRPC CPU ms/text"]) == ("10.0", "0.150")
    assert "own asyncio clients" in as_markdown(document)


def test_a_protocol_that_was_not_measured_is_compared_with_nothing() -> None:
    document = as_document([_protocols(0, 400)], ENVIRONMENT, SETTINGS, Invariance([]), {})
    assert [table.rows for table in tables(document) if table.title == "gRPC beside HTTP"] == [[]]


def test_figures_that_are_no_numbers_stay_out_of_the_json() -> None:
    result = Result("http", "1 connection", {"connections": 1}, [{"rate": 1.0, "p50_ms": float("nan")}])
    document = as_document([result], ENVIRONMENT, SETTINGS, Invariance([]), {})
    assert document["ways"][0]["medians"] == {"rate": 1.0}
    json.dumps(document, allow_nan=False)


def test_markdown_has_a_table_a_section_and_a_dash_where_nothing_was_measured() -> None:
    text = as_markdown(_document(), [Table("More", ("", "a|b"), [("x", "1")])])
    assert "| 32 connections | 450 | 0.90 | 10.0 | 20.0 | 0.20 |" in text
    assert "| one by one, all cores | 450 | 0.90 | – | – |" in text
    assert "| largest \\|difference\\| of a score, under load and alone (1234 answers) | 3.1e-05 |" in text
    assert "| resident memory at the end, gateway | 91 MB |" in text
    assert "Left out: GPU: there is none" in text
    assert text.endswith("## More\n\n|  | a\\|b |\n|---|---:|\n| x | 1 |\n")


def test_every_row_of_a_table_has_a_cell_for_every_head() -> None:
    for table in tables(_document()):
        assert {len(row) for row in table.rows} == {len(table.heads)}
        assert len(markdown_table(table.heads, table.rows).splitlines()) == 2 + len(table.rows)


def test_a_slower_machine_is_no_change_and_a_smaller_share_is() -> None:
    before = _document()
    same = [
        Result(
            result.section, result.name, result.facts, [{**s, "rate": s["rate"] / 3} for s in result.rounds]
        )
        for result in _results()
    ]
    slower = as_document(same, ENVIRONMENT, SETTINGS, Invariance([]), {})
    assert {round(change.ratio, 4) for change in changes(before, slower)} == {1.0}
    found = list(changes(before, _document(0.85)))
    assert {change.name for change in found if change.worse} == {
        "1 connections",
        "32 connections",
        "128 connections",
    }
    rows = {row[0]: row[1:] for row in as_table(before, _document(0.85)).rows}
    assert rows["Gateway over HTTP: 32 connections"] == ["0.900", "0.765", "0.85", "worse"]
    assert not any(name.startswith("measured with") for name in rows)
    assert rows["Null model: the cost of serving alone: no gateway"][-1] == ""


def test_a_comparison_names_different_conditions() -> None:
    now = _document()
    now["settings"] = SETTINGS | {"load_generator": "our own asyncio client"}
    assert as_table(_document(), now).rows[-1] == [
        "measured with: load_generator",
        "wrk 4.1.0",
        "our own asyncio client",
        "",
        "",
    ]


def test_a_loss_of_ten_per_cent_is_not_yet_worse() -> None:
    found = {change.name: change for change in changes(_document(), _document(0.91))}
    assert not found["32 connections"].worse


def test_only_a_bench_of_this_format_can_be_compared_with(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    document = _document()
    file.write_text(json.dumps(document), encoding="utf-8")
    assert read_document(file) == document
    for other in ("[]", '{"format": 0}', "not JSON"):
        file.write_text(other, encoding="utf-8")
        with pytest.raises(ValueError, match=r"bench\.json|Expecting"):
            read_document(file)


def test_pictures_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    files = write_plots(_document(), tmp_path)
    assert [file.name for file in files] == ["http.png", "null.png", "length.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    only = as_document(_results()[:3], ENVIRONMENT, SETTINGS, Invariance([]), {})
    assert write_plots(only, tmp_path) == []
