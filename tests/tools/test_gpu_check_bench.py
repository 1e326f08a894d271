"""The GPU check's bench: its plan, what it leaves out, which budget is best, and the page."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from loadtest.client import LoadError, NoAnswerError
from tools.gpu_check import load, page
from tools.gpu_check.budgets import compare_budgets, verdict
from tools.gpu_check.grid import BUDGET, HTTP, IN_PROCESS, NULL, SENTENCES, Way, grid, ways
from tools.gpu_check.job import Job, Settings
from tools.gpu_check.models import OTHER_BUDGETS, USUAL_BUDGET
from tools.gpu_check.pace import Pace, seconds_each


def test_the_whole_grid_is_measured_and_the_most_telling_ways_first() -> None:
    whole = grid(False, cores=16)
    planned = list(ways(whole))
    assert len(planned) == len(set(planned))
    over_http = {(way.precision, way.tokens, way.at_once) for way in planned if way.way == HTTP}
    assert over_http == {
        (precision, tokens, count)
        for precision in ("fp16", "fp32")
        for tokens in (SENTENCES, 16, 32, 64, 128, 256, 512)
        for count in (1, 8, 32, 128, 512)
    }
    assert planned[0].way == IN_PROCESS, "the ceiling comes before what is compared with it"
    first_lengths = next(place for place, way in enumerate(planned) if way.tokens != SENTENCES)
    assert {way.way for way in planned[:first_lengths]} == {IN_PROCESS, HTTP, NULL, BUDGET}
    # Without cores for them, no more processes of the gateway.
    assert {way.workers for way in ways(grid(False, cores=2))} == {1}
    assert {way.workers for way in planned} == {1, 8}


def test_the_ceiling_is_measured_with_groups_that_the_server_can_form() -> None:
    in_process = [way for way in ways(grid(False, cores=2)) if way.way == IN_PROCESS]
    assert max(way.at_once for way in in_process) == USUAL_BUDGET.texts
    assert max(way.at_once * way.tokens for way in in_process) == USUAL_BUDGET.tokens


def test_on_a_gpu_all_budgets_are_served_with_more_texts_than_any_takes_in_alternating_rounds() -> None:
    planned = [way for way in ways(grid(False, cores=2)) if way.way == BUDGET]
    budgets = (USUAL_BUDGET, *OTHER_BUDGETS)
    assert [way.budget for way in planned] == [*budgets] * (len(planned) // len(budgets))
    assert {way.round for way in planned} == {1, 2}
    assert min(way.at_once for way in planned) > max(budget.texts for budget in budgets)
    # On a CPU they count for nothing.
    on_cpu = [way for way in ways(grid(False, cores=2, on_gpu=False)) if way.way == BUDGET]
    assert [way.budget for way in on_cpu] == [USUAL_BUDGET, OTHER_BUDGETS[0]]


def _budget_rows(*rates: tuple[str, int, float]) -> list[dict[str, Any]]:
    return [
        {"way": BUDGET, "precision": "fp16", "tokens": tokens, "at_once": 512, "budget": budget, "rate": rate}
        for budget, tokens, rate in rates
    ]


def test_the_best_budget_is_the_one_that_was_faster_in_every_round() -> None:
    usual, large = str(USUAL_BUDGET), str(OTHER_BUDGETS[1])
    rows = _budget_rows((usual, 0, 100), (large, 0, 220), (usual, 0, 110), (large, 0, 200), (usual, 128, 5))
    found = compare_budgets([*rows, {"way": HTTP, "tokens": 0, "at_once": 512, "rate": 1.0}])
    assert [each["budget"] for each in found] == [usual, large], "a load without all budgets does not count"
    assert found[0]["of_usual"] == 1
    assert found[1]["of_usual"] == pytest.approx(2)
    assert found[1]["surely"] == pytest.approx(200 / 110)
    assert verdict(found) == (
        "Groups of at most 256 texts and 65,536 tokens gave the most texts a second: 2.00 of the default's "
        "(groups of at most 64 texts and 16,384 tokens), and more than it in every round."
    )
    rows = _budget_rows((usual, 0, 100), (large, 0, 220), (usual, 0, 150), (large, 0, 140))
    assert verdict(compare_budgets(rows)).startswith("No budget was faster than groups of at most 64 texts")
    assert verdict(compare_budgets(rows[:1])) == verdict([]) == ""


def test_nothing_is_begun_that_does_not_end_in_time() -> None:
    pace = Pace(sentence_tokens=20)
    one, many = (Way(IN_PROCESS, "fp16", SENTENCES, group) for group in (1, 64))
    assert pace.why_not(many, 0.5, 60) is None, "nothing is known yet"
    pace.learn(one, 32.0)
    assert pace.once_s(many) == pytest.approx(2)
    assert pace.why_not(many, 0.5, 60) == "a run takes 2.0 s here"
    # By their tokens, and carefully: 25 times those of a sentence, and twice that.
    long = Way(HTTP, "fp32", 500, 8)
    assert pace.once_s(long) == pytest.approx(8 * 2 * 25 / 32)
    assert pace.why_not(long, 0.5, 60) == "an answer on every connection takes 12.5 s here"
    pace.learn(long, 16.0)
    assert pace.why_not(long, 0.5, 60) is None
    assert pace.why_not(long, 0.5, 1.9) == "no time was left", "a second, the last answers, and the start"
    assert pace.why_not(Way(NULL, "", SENTENCES, 512), 0.5, 60) is None


def test_what_time_there_is_is_shared_out() -> None:
    assert seconds_each(60, 10, 5) == 3
    assert seconds_each(60, 10, 2) == 2
    assert seconds_each(1, 10, 2) == 0.4


@pytest.mark.parametrize(
    ("script", "used"),
    [("echo 'wrk 4.1.0 [epoll]'", "wrk 4.1.0"), ("echo no luajit >&2; exit 127", "our own asyncio client")],
)
def test_a_wrk_that_does_not_run_here_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, used: str
) -> None:
    (tmp_path / "wrk").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "wrk").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load.load_generator()[1] == used
    assert load.load_generator(short=True)[1] == "our own asyncio client", "wrk counts whole seconds"


@pytest.mark.parametrize(
    ("error", "rows", "left_out"),
    [(NoAnswerError("none"), 0, 1), (LoadError("the server answered 503"), 1, 0)],
)
def test_a_way_without_an_answer_in_time_is_left_out_and_a_refusal_is_a_failure(
    tmp_path: Path, error: LoadError, rows: int, left_out: int
) -> None:
    def measure() -> dict[str, float]:
        raise error

    job = Job(Settings("cpu", True, tmp_path), tmp_path / "bench.json", time.monotonic() + 9)
    assert load._measure(job, Way(HTTP, "fp16", SENTENCES, 8), measure) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert (len(found["rows"]), len(found["left_out"])) == (rows, left_out)


@pytest.mark.parametrize(("device", "shown"), [("cuda", 0.5), ("cpu", None)])
def test_only_a_gpus_runs_in_this_process_are_a_ceiling(
    tmp_path: Path, device: str, shown: float | None
) -> None:
    job = Job(Settings(device, True, tmp_path), tmp_path / "bench.json", time.monotonic() + 9)
    load._measure(job, Way(IN_PROCESS, "fp16", SENTENCES, 8), lambda: {"rate": 200.0})
    load._measure(job, Way(HTTP, "fp16", SENTENCES, 8), lambda: {"rate": 100.0})
    assert job.rows[1].get("of_ceiling") == shown


def test_the_ceiling_is_the_fastest_run_with_the_same_texts_and_precision() -> None:
    rows: list[dict[str, Any]] = [
        {"way": IN_PROCESS, "precision": "fp16", "tokens": 16, "rate": 10.0},
        {"way": IN_PROCESS, "precision": "fp16", "tokens": 16, "rate": 30.0},
        {"way": IN_PROCESS, "precision": "fp16", "tokens": 16, "error": "failed"},
        {"way": IN_PROCESS, "precision": "fp32", "tokens": 16, "rate": 99.0},
        {"way": HTTP, "precision": "fp16", "tokens": 16, "rate": 99.0},
    ]
    assert load.best_in_process(rows, "fp16", 16) == 30
    assert load.best_in_process(rows, "fp16", 32) is None


def _result(name: str, status: str = "passed", **more: Any) -> dict[str, Any]:
    about = {"name": name, "title": f"Title of {name}", "status": status, "found": "It | is so."}
    return {**about, "seconds": 1.0, "limit_s": 9.0, "figures": {}, "rows": [], "left_out": [], **more}


def _row(way: str, precision: str, tokens: int, at_once: int, **figures: float) -> dict[str, Any]:
    facts = {"way": way, "precision": precision, "tokens": tokens, "at_once": at_once, "workers": 1}
    return {**facts, **figures}


_MACHINE = {
    "cpu": "Some CPU", "cores": 16, "python": "3.12.3", "onnxruntime": "1.26.0", "driver": "580.1",
    "gpus": [{"name": "NVIDIA H200", "memory_mb": 150000}],
    "packages": {"nvidia-cudnn-cu12": "9.28", "tokenizers": "1"},
}  # fmt: skip


def test_the_page_names_gpu_driver_and_versions_and_what_the_gpu_did() -> None:
    rows = [
        _row(IN_PROCESS, "fp16", 0, 128, rate=20000.0),
        _row(HTTP, "fp16", 0, 128, rate=15000.0, p50_ms=8.0, p99_ms=16.0, of_ceiling=0.75,
             gpu_busy=0.88, gpu_memory_mb=2500.0, gpu_watts=300.0, rate_per_watt=50.0),
        _row(HTTP, "fp16", 512, 1) | {"error": "the server answered 503"},
    ]  # fmt: skip
    results = [
        _result("doctor", figures={"machine": _MACHINE}),
        _result("bench", rows=rows, figures={"load_generator": "wrk 4.1.0"}, left_out=["HTTP: no time"]),
        _result("plan", "skipped"),
    ]
    document = page.as_document("cuda", False, 400.0, "2026-01-02", results)
    text = page.as_markdown(document)
    assert text.startswith("## GPU check: NVIDIA H200\n")
    assert "`make gpu-check DEVICE=cuda` on 2026-01-02, 400 s." in text
    assert "driver 580.1; NVIDIA H200 with 150,000 MB; nvidia-cudnn-cu12 9.28." in text
    assert (
        "| FP16 HTTP | sentences | 128 connections | 15,000 | 0.75 | 8.0 | 16.0 | 88 | 2.5 | 300 | 50.0 |"
        in text
    )
    assert "| FP16 HTTP | 512 tokens | 1 connection | failed: the server answered 503 |" in text
    assert document["not_proven"] == [
        "Title of bench: 1 left out; gpu-check.json says which, and why.",
        "Title of plan (skipped): It | is so.",
        "Several GPUs: there is one here.",
    ]
    assert "It \\| is so." in text, "a cell would end there"
    assert page.failed(document) == []


@pytest.mark.parametrize(("provider", "shown"), [("CUDA", True), ("CPU", False)])
def test_the_page_lists_operators_by_provider_and_a_gpus_speed_with_lengths(
    provider: str, shown: bool
) -> None:
    row = {"precision": "fp16", "provider": f"{provider}ExecutionProvider", "nodes": 2}
    figures = {"lengths_instead_of_a_mask_64x64": 1.25}
    results = [_result("operators", rows=[row | {"operators": {"MatMul": 2}}], figures=figures)]
    text = page.as_markdown(page.as_document("cuda", False, 60.0, "2026-01-02", results))
    assert f"| FP16 | {provider}ExecutionProvider | 2 MatMul | 2 |" in text
    assert ("Speed with lengths in the place of the mask, FP16, 64 × 64 tokens: 1.25." in text) is shown


def test_a_run_on_the_cpu_says_first_that_it_proves_nothing_of_a_gpu() -> None:
    results = [
        _result("doctor", figures={"machine": _MACHINE | {"gpus": []}}),
        _result("stub", "failed", figures={"back_s": 1.5, "statuses": {"200": 3}}),
        _result("memory", "out of time"),
    ]
    document = page.as_document("cpu", True, 60.0, "2026-01-02", results)
    text = page.as_markdown(document)
    assert text.startswith("## GPU check: a run on the CPU\n")
    assert document["not_proven"][0].startswith("Everything that needs a GPU.")
    assert "- Title of memory (out of time): It | is so." in text
    assert "| statuses | 200: 3 |" in text
    assert page.failed(document) == ["Title of stub", "Title of memory"]
