"""SIGINT and SIGTERM in the middle of a run: nothing new is sent, and there is a report of what was."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtest.summary import as_markdown, summarise
from loadtest.verdict import VerdictLimits, complaints
from tests.loadtest.test_summary import ABOUT, _record
from tests.support.locust_run import StandIn, require_locust, stand_in, start_locust
from tests.support.servers import wait_until

TEXTS = 16
# One that works for nobody: what is sent to this machine must not go there.
PROXIES = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY", "grpc_proxy"), "http://127.0.0.1:1")


@pytest.fixture
def server() -> Iterator[StandIn]:
    require_locust()
    with stand_in() as server:
        yield server


def _reports(server: StandIn, folder: Path) -> tuple[str, ...]:
    files = ("--html", f"{folder}/report.html", "--csv", f"{folder}/locust", "--output", str(folder))
    return ("--config", "loadtest/locust.conf", "--host", server.url, *files, "--texts", str(TEXTS))


def _until(server: StandIn, answers: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many answers were begun."""
    assert wait_until(lambda: process.poll() is not None or server.answers >= answers, 60)
    assert process.poll() is None, process.communicate()[0]


def _summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def _ended(process: subprocess.Popen[str]) -> str:
    """What it said to its end."""
    try:
        return process.communicate(timeout=40)[0]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_open_loop_sends_nothing_after_a_signal_and_waits_for_what_is_under_way(
    server: StandIn, tmp_path: Path, number: signal.Signals
) -> None:
    server.stall_after, server.stall_s = TEXTS + 60, 1.5
    options = ("--rate", "50", "--arrivals", "even", "--duration", "60s")
    with start_locust(*_reports(server, tmp_path), *options, **PROXIES) as process:
        _until(server, TEXTS + 70, process)  # ten wait for the stall to end
        asked = server.answers
        process.send_signal(number)
        output = _ended(process)
    assert process.returncode == 1, output
    assert server.answers - asked <= 25, "it went on sending"  # half a second of it, on a busy machine
    summary = _summary(tmp_path)
    assert summary["requests"]["due"] == summary["requests"]["good"] >= 70
    assert 1 < summary["stopped_after_s"] < 10
    assert summary["wanted_per_s"] == pytest.approx(50, rel=0.1)
    # A machine that is busy with other tests adds what it likes about latencies.
    complaint = summary["complaints"][0]
    assert complaint.startswith("stopped by a signal after ")
    assert "it came to" not in output
    assert f"failed; report in {tmp_path}" in output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<body><section id="verdict"' in page
    assert "<strong>Failed.</strong>" in page
    assert complaint in page


def test_users_of_a_closed_loop_do_not_ask_again_after_a_signal(server: StandIn, tmp_path: Path) -> None:
    options = ("--loop", "closed", "--users", "4", "--duration", "60s")
    with start_locust(*_reports(server, tmp_path), *options) as process:
        _until(server, TEXTS + 100, process)
        process.send_signal(signal.SIGTERM)
        output = _ended(process)
    summary = _summary(tmp_path)
    assert process.returncode == 1, output
    assert summary["requests"]["due"] == summary["requests"]["good"] > 50
    assert summary["complaints"][0].startswith("stopped by a signal after ")


def test_a_second_signal_gives_up_what_is_under_way_and_still_reports(
    server: StandIn, tmp_path: Path
) -> None:
    server.stall_after, server.stall_s = TEXTS + 20, 30
    options = ("--rate", "50", "--duration", "60s", "--timeout", "14")
    with start_locust(*_reports(server, tmp_path), *options) as process:
        _until(server, TEXTS + 30, process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # two of a kind at once are one signal
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        output = _ended(process)
    assert process.returncode == 1, output
    assert time.monotonic() - began < 10
    assert _summary(tmp_path)["errors"]["unanswered"] >= 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_load_is_one_sentence(
    server: StandIn, tmp_path: Path, number: signal.Signals
) -> None:
    server.stall_after, server.stall_s = 5, 3
    with start_locust(*_reports(server, tmp_path)) as process:
        _until(server, 5, process)
        process.send_signal(number)
        output = _ended(process)
    assert process.returncode == 1
    assert "No load: stopped while asking each text alone" in output
    assert "Traceback" not in output
    assert "KeyboardInterrupt" not in output


def test_a_signal_while_the_capacity_is_found_is_the_only_reason(server: StandIn, tmp_path: Path) -> None:
    with start_locust(*_reports(server, tmp_path), "--calibration", "60s") as process:
        _until(server, TEXTS + 100, process)
        process.send_signal(signal.SIGINT)
        output = _ended(process)
    assert process.returncode == 1, output
    assert _summary(tmp_path)["complaints"] == ["stopped by a signal after 0.0 of 60 s"]
    assert "nothing was asked" not in output


def test_master_and_workers_that_get_the_signal_together_report_everything(
    server: StandIn, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    bound = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2")
    options = ("--rate", "50", "--arrivals", "even", "--duration", "60s")
    everybody = [
        start_locust(*_reports(server, tmp_path), "--master", *bound, *options),
        *(start_locust("-f", "loadtest/locustfile.py", "--worker", "--master-port", port) for _ in range(2)),
    ]
    try:
        _until(server, TEXTS + 60, everybody[0])
        for process in everybody:
            process.send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=40)[0] for process in everybody]
    finally:
        for process in everybody:
            process.kill()
            process.communicate()
    assert [process.returncode for process in everybody] == [1, 0, 0], outputs
    summary = _summary(tmp_path)
    assert summary["generator"]["started"] == summary["generator"]["finished"] == 2
    assert summary["requests"]["due"] == summary["requests"]["good"] == server.answers - TEXTS
    assert summary["complaints"][0].startswith("stopped by a signal after ")


def test_a_run_that_was_stopped_fails_and_its_rates_are_those_of_the_time_it_had() -> None:
    about = ABOUT | {"duration_s": 60, "stopped_after_s": 10.0}
    summary = summarise(_record(), about, rate=20, generators=1)
    assert (summary["wanted_per_s"], summary["good_per_s"]) == (20, 20)
    found = complaints(summary, VerdictLimits())
    assert found == ["stopped by a signal after 10.0 of 60 s"]
    words = as_markdown(summary | {"passed": False, "complaints": found, "plots": []})
    assert "| stopped after | 10.0 s |" in words
