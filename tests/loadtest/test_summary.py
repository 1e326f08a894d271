"""From what happened to the verdict on it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loadtest.compare import main
from loadtest.plots import write_plots
from loadtest.record import Histogram, Record
from loadtest.summary import as_markdown, read_summary, summarise
from loadtest.verdict import VerdictLimits, complaints

ABOUT = {"host": "http://h", "model": "@cf/x", "traffic": "single", "loop": "open", "shape": "constant"}


def _record(latency_s: float = 0.1, seconds: int = 10, rate: int = 20, outcome: str = "ok") -> Record:
    record = Record()
    record.facts.update({"generators": 1, "finished": 1})
    for number in range(seconds * rate):
        due = number / rate
        record.at(due, "single").due += 1
        record.add("single", due, due + 0.001, due + latency_s, outcome, 1)
    return record


def _summary(record: Record, **about: Any) -> dict[str, Any]:
    summary = summarise(record, ABOUT | {"duration_s": 10} | about)
    found = complaints(summary, VerdictLimits())
    return summary | {"passed": not found, "complaints": found, "plots": []}


def test_a_percentile_is_exact_to_half_a_per_cent() -> None:
    histogram = Histogram()
    for number in range(1, 10_001):
        histogram.add(number / 1000)
    for share in (0.001, 0.5, 0.95, 0.99, 1):
        assert histogram.percentile_ms(share) == pytest.approx(10_000 * share, rel=0.006)
    assert Histogram().percentile_ms(0.5) is None


def test_a_clock_that_stands_still_is_no_error() -> None:
    histogram = Histogram()
    histogram.add(0)
    histogram.add(-1e-9)
    assert histogram.percentile_ms(1) == pytest.approx(0.001, rel=0.01)


def test_records_of_two_processes_add_up_through_a_message() -> None:
    whole, first, second = _record(), _record(seconds=5), _record()
    half = Record()
    for number in range(100, 200):
        due = number / 20
        half.at(due, "single").due += 1
        half.add("single", due, due + 0.001, due + 0.1, "ok", 1)
    first.merge(json.loads(json.dumps(half.take())))
    assert not half.seconds
    assert _summary(first) == _summary(whole) == _summary(second)


def test_taking_in_pieces_loses_nothing() -> None:
    source, target = _record(seconds=5), Record()
    target.merge(source.take())
    source.merge(_record(seconds=5).take())
    target.merge(source.take())
    assert _summary(target)["requests"] == {"due": 200, "good": 200, "errors": 0}


def test_a_good_run_passes_and_reports_its_figures() -> None:
    summary = _summary(_record())
    assert summary["complaints"] == []
    assert (summary["wanted_per_s"], summary["good_per_s"], summary["texts_per_s"]) == (20, 20, 20)
    assert summary["latency_ms"]["p99"] == pytest.approx(100, rel=0.01)
    assert summary["generator"]["late_p99_ms"] == pytest.approx(1, rel=0.01)
    assert [row["due"] for row in summary["timeline"]] == [20] * 10
    assert statistics.mean(row["answered"] for row in summary["timeline"]) == pytest.approx(20, rel=0.15)


def test_latencies_are_of_good_answers_so_that_quick_refusals_do_not_flatter() -> None:
    record = _record(latency_s=0.2)
    for number in range(400):
        record.at(number / 40, "single").due += 1
        record.add("single", number / 40, number / 40, number / 40 + 0.001, "429/3040", 1)
    summary = _summary(record)
    assert summary["latency_ms"]["p50"] == pytest.approx(200, rel=0.01)
    assert summary["errors"] == {"429/3040": 400}
    assert summary["complaints"][0].startswith("errors: 66.67% of 600 requests")
    assert "400 × 429/3040" in summary["complaints"][0]
    assert "rate: 33.3% of the wanted 60 requests/s" in summary["complaints"][1]


def test_what_never_got_an_answer_is_an_error() -> None:
    record = _record()
    record.at(9, "single").due += 3
    assert _summary(record)["errors"] == {"unanswered": 3}


def test_wrong_answers_fail_even_where_errors_are_allowed() -> None:
    record = _record()
    record.at(1, "single").due += 1
    record.add("single", 1, 1, 1.1, "wrong score", 1)
    found = complaints(_summary(record), VerdictLimits(error_share=0.5, achieved_share=0.5))
    assert found == ["wrong answers: 1 × wrong score"]


def test_each_latency_limit_is_named() -> None:
    summary = _summary(_record(latency_s=2))
    assert [one.split()[1] for one in summary["complaints"]] == ["p50", "p95", "p99"]
    assert complaints(summary, VerdictLimits(p50_ms=2100, p95_ms=2100, p99_ms=2100)) == []


def test_a_generator_that_is_late_or_dead_is_not_blamed_on_the_server() -> None:
    record = Record()
    record.facts.update({"generators": 2, "finished": 1})
    record.at(0, "single").due += 1
    record.add("single", 0, 0.2, 0.21, "ok", 1)
    assert [one.split(":")[0] for one in _summary(record)["complaints"]] == [
        "load generator",
        "load generator",
    ]


def test_a_generator_that_never_began_fails_the_run_although_the_others_did_their_part() -> None:
    record = _record(rate=100)
    document = ABOUT | {"duration_s": 10}
    assert complaints(summarise(record, document, rate=100, generators=1), VerdictLimits()) == []
    assert complaints(summarise(record, document, rate=200, generators=2), VerdictLimits()) == [
        "load generator: it came to 1000 of the 2000 requests that were asked for",
        "load generator: 1 of 2 never began",
    ]


@pytest.mark.parametrize(("sent", "passes"), [(195, True), (155, True), (140, False)])
def test_random_arrivals_may_be_a_few_sigma_fewer_than_asked(sent: int, passes: bool) -> None:
    record = _record(rate=1, seconds=sent)
    summary = summarise(record, ABOUT | {"duration_s": 100}, rate=2, generators=1)
    assert (complaints(summary, VerdictLimits()) == []) == passes


def test_what_was_asked_goes_by_the_shape_and_by_the_capacity_that_was_found() -> None:
    about = ABOUT | {"duration_s": 10}
    assert summarise(_record(), about | {"shape": "ramp"}, rate=20)["asked_per_s"] == pytest.approx(11)
    assert summarise(_record(), about | {"shape": "spike"}, rate=20)["asked_per_s"] == pytest.approx(28)
    record = _record()
    record.facts["asked_milli"] += 20_500
    assert summarise(record, about)["asked_per_s"] == 20.5


def test_a_wrong_answer_before_the_load_fails_the_run_and_a_refusal_does_not() -> None:
    record = _record()
    record.calibrated({"ok": 500, "429/3040": 7}, found=True)
    assert _summary(record)["complaints"] == []
    record.calibrated({"ok": 500, "wrong score": 1}, found=True)
    found = complaints(_summary(record), VerdictLimits(error_share=1, achieved_share=0))
    assert found == ["wrong answers: 1 × wrong score"]
    # It was no part of the load.
    assert _summary(record)["wanted_per_s"] == 20


def test_where_no_capacity_is_found_its_errors_are_the_runs() -> None:
    record = Record()
    record.calibrated({"429/3040": 7}, found=False)
    assert _summary(record)["errors"] == {"429/3040": 7}


def test_a_closed_loop_has_no_wanted_rate() -> None:
    summary = _summary(_record(outcome="429/3040"), loop="closed")
    assert [one.split(":")[0] for one in summary["complaints"]] == ["errors", "no good answer"]


def test_nothing_asked_is_a_failure() -> None:
    assert _summary(Record())["complaints"] == ["nothing was asked"]


def test_a_soak_that_slows_down_fails() -> None:
    record = _record(latency_s=0.05)
    for number in range(200):
        due = 10 + number / 20
        record.at(due, "single").due += 1
        record.add("single", due, due, due + 0.1, "ok", 1)
    assert _summary(record, duration_s=20)["complaints"] == []
    (found,) = _summary(record, shape="soak", duration_s=20)["complaints"]
    assert found.startswith("soak: the median rose from 50 to 100 ms")
    assert _summary(_record(), shape="soak")["complaints"] == []


def test_pictures_are_drawn_of_any_run(tmp_path: Path) -> None:
    broken = _record(outcome="429/3040")
    for name, record in {"good": _record(), "broken": broken, "empty": Record()}.items():
        folder = tmp_path / name
        folder.mkdir()
        files = write_plots(_summary(record), folder)
        assert [file.name for file in files] == ["latency.png", "throughput.png", "errors.png"]
        assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_the_report_begins_with_the_verdict() -> None:
    assert as_markdown(_summary(_record())).startswith("# Load test\n\nPassed.\n\n| ")
    failed = as_markdown(_summary(_record(latency_s=2)))
    assert failed.startswith("# Load test\n\nFailed:\n- latency: p50 is")


def _write(summary: dict[str, Any], folder: Path) -> Path:
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def test_two_reports_stand_side_by_side(tmp_path: Path) -> None:
    first = _write(_summary(_record()), tmp_path / "first")
    second = _write(_summary(_record(latency_s=0.2)), tmp_path / "second")
    result = CliRunner().invoke(main, [str(first), str(second), "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    rows = {
        cells[1].strip(): cells[2:5] for cells in (line.split("|") for line in result.output.splitlines())
    }
    assert [cell.strip() for cell in rows["p50 ms"]] == ["100", "199", "1.99"] or rows["p50 ms"][
        2
    ].strip() == "2.00"
    assert rows["good answers/s"][2].strip() == "1.00"
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert result.output.strip() in (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")


def test_a_report_beside_itself_or_something_else(tmp_path: Path) -> None:
    first = _write(_summary(_record()), tmp_path / "first")
    same = CliRunner().invoke(main, [str(first), str(first / "summary.json")])
    assert (same.exit_code, "verdict" in same.output) == (0, True)
    twice = CliRunner().invoke(main, [str(first), str(first)])
    assert f"{first} (1)" in twice.output
    (tmp_path / "other.json").write_text('{"format": 0}', encoding="utf-8")
    other = CliRunner().invoke(main, [str(first), str(tmp_path / "other.json")])
    assert (other.exit_code, "is no summary" in other.output) == (1, True)
    with pytest.raises(OSError, match=r"summary\.json"):
        read_summary(tmp_path)
