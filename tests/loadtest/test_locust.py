"""Real runs of locust: on a stand-in that lies or stalls, and on the gateway and the real Triton."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundled import bundled_repository
from tests.support.locust_run import StandIn, load, require_locust, stand_in, start_locust
from tests.support.servers import TOKEN, Program, running

REPORTS = {
    "errors.png",
    "latency.png",
    "locust_exceptions.csv",
    "locust_failures.csv",
    "locust_stats.csv",
    "locust_stats_history.csv",
    "references.json",
    "report.html",
    "summary.json",
    "summary.md",
    "throughput.png",
}
QUICK = ("--texts", "32", "--rate", "50", "--arrivals", "even")


@pytest.fixture(scope="module", autouse=True)
def _locust() -> None:
    require_locust()


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


@pytest.fixture(scope="module")
def gateway() -> Iterator[Program]:
    settings = {
        "GATEWAY_API_TOKENS": f"*:{TOKEN}",
        "GATEWAY_MAX_REQUESTS_IN_FLIGHT": "32",
        "GATEWAY_MAX_BATCH_TEXTS": "32",
    }
    with running("serve", "--port", "0", "--repository", str(bundled_repository()), **settings) as program:
        yield program


def test_a_good_run_on_the_real_server_writes_every_report(gateway: Program, tmp_path: Path) -> None:
    run = load(gateway.url, tmp_path, "--rate", "40", "--duration", "4s", "--traffic", "mixed")
    assert run.status == 0, run.output
    assert {file.name for file in tmp_path.iterdir()} == REPORTS
    summary = run.summary
    assert summary["passed"]
    assert "labels as FP32 PyTorch" in summary["references"]
    assert summary["requests"]["due"] == summary["requests"]["good"] > 100
    assert {"single", "several", "invalid"} <= set(summary["kinds"])
    assert summary["texts_per_s"] > summary["kinds"]["single"]["good"] / 4
    assert TOKEN not in "".join(
        file.read_text(encoding="utf-8") for file in tmp_path.iterdir() if file.suffix != ".png"
    )


def test_too_much_for_the_real_server_fails_with_the_reason(gateway: Program, tmp_path: Path) -> None:
    load_options = ("--load", "3", "--calibration", "2", "--calibration-users", "16", "--duration", "3")
    run = load(gateway.url, tmp_path, *load_options)
    assert run.status == 1, run.output
    assert re.search(r"failed: errors: \d+\.\d+% of \d+ requests, .* × 429/3040", run.output)
    assert re.search(r"failed: rate: \d+\.\d% of the wanted \d+ requests/s", run.output)
    summary = run.summary
    assert summary["wanted_per_s"] == pytest.approx(3 * summary["capacity_per_s"], rel=0.15)
    assert set(summary["errors"]) == {"429/3040"}
    assert "Failed:\n- errors" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_a_closed_loop_asks_again_when_answered(gateway: Program, tmp_path: Path) -> None:
    run = load(gateway.url, tmp_path, "--loop", "closed", "--users", "4", "--duration", "2", "--texts", "32")
    assert run.status == 0, run.output
    assert run.summary["requests"]["good"] > 50
    assert run.summary["capacity_per_s"] is None


def test_an_answer_that_moves_under_load_is_found(server: StandIn, tmp_path: Path) -> None:
    server.lie_after = 32 + 50
    run = load(server.url, tmp_path, *QUICK, "--duration", "2", "--max-error-share", "1")
    assert run.status == 1, run.output
    assert "failed: wrong answers: 50 × wrong score" in run.output
    assert f"failed; report in {tmp_path}" in run.output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<strong>Failed.</strong>" in page
    assert "<li>wrong answers: 50 × wrong score</li>" in page
    assert run.summary["requests"] == {"due": 100, "good": 50, "errors": 50}


def test_a_server_that_always_lies_is_found_by_answers_of_another(server: StandIn, tmp_path: Path) -> None:
    truth, lie = tmp_path / "truth", tmp_path / "lie"
    assert load(server.url, truth, *QUICK, "--duration", "1").status == 0
    server.lie_after = 0
    assert load(server.url, lie, *QUICK, "--duration", "1").status == 0
    run = load(server.url, lie, *QUICK, "--duration", "1", "--reference", str(truth / "references.json"))
    assert (run.status, run.summary["errors"]) == (1, {"wrong score": 50})


def test_a_stall_shows_in_everything_that_was_due_in_it(server: StandIn, tmp_path: Path) -> None:
    server.stall_after = 32 + 50
    run = load(server.url, tmp_path, *QUICK, "--duration", "4")
    # One of the four seconds: 50 of 200 requests waited, half a second on average.
    assert run.summary["requests"]["due"] == 200
    assert run.summary["latency_ms"]["p90"] > 450
    assert run.summary["latency_ms"]["p50"] < 100
    assert 900 < run.summary["latency_ms"]["max"] < 1300


def test_no_server_and_no_token_are_clear_errors(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = load(f"http://127.0.0.1:{taken.getsockname()[1]}", tmp_path)
    assert (nobody.status, "No load: no answer from" in nobody.output) == (1, True)
    without = load("http://127.0.0.1:9", tmp_path, TOKEN="")
    assert (without.status, "Set TOKEN to an API token" in without.output) == (1, True)
    wrong = load("http://127.0.0.1:9", tmp_path, "--traffic", "short")
    assert (wrong.status, "'short' is none of single" in wrong.output) == (2, True)


def test_a_run_that_never_starts_leaves_no_report_of_the_run_before(tmp_path: Path) -> None:
    for name in REPORTS | {"mine.txt"}:
        (tmp_path / name).write_text("Passed.", encoding="utf-8")
    run = load("http://127.0.0.1:9", tmp_path, TOKEN="")
    assert run.status == 1, run.output
    left = {file.name for file in tmp_path.iterdir() if file.read_text(encoding="utf-8") == "Passed."}
    assert left == {"mine.txt", "references.json"}


@pytest.mark.parametrize("host", ["http://[unix:/tmp/x]:8787", "http://127.0.0.1:99999", "http://"])
def test_a_host_that_is_no_url_is_a_clear_error(tmp_path: Path, host: str) -> None:
    run = load(host, tmp_path)
    assert (run.status, "Traceback" in run.output) == (1, False), run.output
    assert f"No load: {host} is not a valid URL" in run.output


def test_a_refused_token_is_a_clear_error(gateway: Program, tmp_path: Path) -> None:
    run = load(gateway.url, tmp_path, TOKEN="unknown-token")
    assert (run.status, "No load: asked alone, the server answered 401, 10000" in run.output) == (1, True)


def test_workers_share_the_rate_and_the_master_judges(server: StandIn, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    worker = ("-f", "loadtest/locustfile.py", "--worker", "--master-port", port)
    master = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    workers = [start_locust(*worker) for _ in range(2)]
    try:
        run = load(server.url, tmp_path, *master, "--expect-workers", "2", *QUICK, "--duration", "3")
        outputs = [process.communicate(timeout=30)[0] for process in workers]
    finally:
        for process in workers:
            if process.poll() is None:
                process.kill()
                process.communicate()
    assert run.status == 0, (run.output, outputs)
    assert [process.returncode for process in workers] == [0, 0], outputs
    summary = run.summary
    assert summary["generator"]["started"] == summary["generator"]["finished"] == 2
    assert summary["requests"] == {"due": 150, "good": 150, "errors": 0}
    assert json.loads((tmp_path / "references.json").read_text(encoding="utf-8"))["format"] == 1


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        ({}, "http://127.0.0.1:8787"),
        ({"GATEWAY_PORT": "9001"}, "http://127.0.0.1:9001"),
        ({"GATEWAY_PORT": "9001", "GATEWAY_HOST": "0.0.0.0"}, "http://127.0.0.1:9001"),
        ({"GATEWAY_PORT": "9001", "GATEWAY_HOST": "10.0.0.7"}, "http://10.0.0.7:9001"),
        ({"GATEWAY_HOST": "::1"}, "http://[::1]:8787"),
        ({"GATEWAY_TLS_CERTIFICATE": "here.pem"}, "https://127.0.0.1:8787"),
        ({"GATEWAY_PORT": "9001", "HOST": "https://api.example.org"}, "https://api.example.org"),
    ],
)
def test_make_asks_the_address_that_the_settings_of_the_gateway_name(
    environment: dict[str, str], host: str
) -> None:
    names = ("GATEWAY_HOST", "GATEWAY_PORT", "GATEWAY_TLS_CERTIFICATE", "HOST")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    told = subprocess.run(
        ["make", "--dry-run", "loadtest"],
        cwd=Path(__file__).parents[2],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"--host {host} " in told


def test_make_runs_it_with_the_names_that_people_use(server: StandIn, tmp_path: Path) -> None:
    names = {"HOST": server.url, "TOKEN": "t", "RATE": "40", "DURATION": "1s", "OUTPUT": str(tmp_path)}
    told = subprocess.run(
        ["make", "--dry-run", "loadtest", *(f"{name}={value}" for name, value in names.items())],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in (f"--host {server.url}", "--rate 40", "--duration 1s", f"--output {tmp_path}"):
        assert option in told
