"""``tritonflare bench`` as people run it, in a hurry, on the real tritonserver."""

from __future__ import annotations

import json
import re
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from loadtest.bench import sections
from tests.support.bundled import bundled_repository
from tests.support.peers import require_peers
from tests.support.servers import finished, start, wait_until
from tritonflare import bench

pytestmark = pytest.mark.needs_triton


def test_the_command_knows_the_sections_of_the_bench() -> None:
    assert bench.SECTIONS == sections.SECTIONS


def test_a_quick_run_leaves_out_only_what_would_double_its_time() -> None:
    assert set(bench.SECTIONS) - set(bench.QUICK_SECTIONS) == {"protocols"}


def test_a_wrong_section_and_a_wrong_number_are_usage_errors() -> None:
    for option, value in (("--sections", "http,speed"), ("--connections", "1,0"), ("--workers", "two")):
        status, output = finished("bench", option, value)
        assert (status, value.split(",")[-1] in output) == (2, True)


def test_a_short_run_measures_every_section_and_compares_with_itself(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    served = "--repository", str(bundled_repository())
    options = (
        "--rounds",
        "1",
        "--seconds",
        "0.3",  # CPU time is told in hundredths of a second, of which a busy machine gives few
        "--connections",
        "1,8",
        "--null-connections",
        "8",
        "--load",
        "own",
    )
    status, output = finished("bench", *served, *options, "--output", str(folder), timeout=240)
    assert status == 0, output
    document = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    assert {row["section"] for row in document["ways"]} == set(sections.SECTIONS)
    assert document["invariance"]["answers"] >= 8
    assert document["invariance"]["largest"] <= 1e-4
    assert document["length_fit"]["ms_per_token"] > 0
    http = {
        row["facts"]["connections"]: row["medians"] for row in document["ways"] if row["section"] == "http"
    }
    assert http[8]["triton_cpu_s"] > http[8]["gateway_cpu_s"] > 0
    assert 0.5 < http[8]["padding_efficiency"] <= 1
    (null,) = (
        row["medians"]
        for row in document["ways"]
        if row["facts"] == {"connections": 8, "workers": 1} and row["section"] == "null"
    )
    assert null["rate"] > http[8]["rate"]
    protocols = [row for row in document["ways"] if row["section"] == "protocols"]
    assert len(protocols) == 2 * 2 * 3, "two concurrencies, calls of 1 and 32 texts, three ways"
    assert all(row["medians"]["gateway_cpu_s"] > 0 for row in protocols if row["facts"]["way"] != 2)
    assert "gRPC beside HTTP" in (folder / "bench.md").read_text(encoding="utf-8")
    assert set(document["memory_mb"]) == {"gateway", "triton"}
    assert "device" not in document["settings"]
    assert "GPU" not in output
    # It may be published: nothing of this machine but its processor.
    assert not re.search(r"/(home|root|tmp|work|usr)\b", json.dumps(document))
    assert {file.suffix for file in folder.iterdir()} == {".json", ".md", ".png"}

    against = ("--against", str(folder / "bench.json"), "--sections", "ceiling", "--output", str(folder))
    status, output = finished(
        "bench", *served, "--rounds", "1", "--seconds", "0.1", *against, "--fail-below", "0.9"
    )
    assert status == 1, output
    assert "HTTP under load is unknown" in output


def test_peers_are_measured_beside_the_gateway_with_the_real_and_the_null_model(tmp_path: Path) -> None:
    require_peers()
    options = ["--sections", "peers", "--peers", "fastapi,mosec", "--rounds", "2", "--seconds", "0.4"]
    options += ["--connections", "1,8", "--null-connections", "32", "--load", "own"]
    options += ["--repository", str(bundled_repository()), "--output", str(tmp_path)]
    status, output = finished("bench", *options, timeout=240)
    assert status == 0, output
    document = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    rows = [row for row in document["ways"] if row["section"] == "peers"]
    servers = ["tritonflare", "FastAPI", "mosec, one text a run", "mosec, groups of like length"]
    assert [row["facts"]["server"] for row in rows] == 3 * servers
    assert [row["facts"]["connections"] for row in rows] == [1] * 4 + [8] * 4 + [32] * 4
    assert [row["facts"]["null"] for row in rows] == [0] * 8 + [1] * 4
    for row in rows:
        assert row["medians"]["rate"] > 0
        assert row["medians"]["server_cpu_s"] > 0
    rates = {tuple(row["facts"].values()): row["medians"]["rate"] for row in rows}
    for server in servers:
        assert rates[32, 1, server] > rates[8, 0, server]
    assert document["settings"]["peers"]["largest_difference"] <= 1e-4
    assert {row["section"] for row in document["ways"]} == {"ceiling", "peers"}
    report = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert "| 8 connections, mosec, one text a run |" in report
    assert "share of the best peer" in report
    assert (tmp_path / "peers.png").exists()


def test_peers_are_asked_long_texts_as_well(tmp_path: Path) -> None:
    require_peers()
    options = ["--sections", "peers", "--peers", "mosec", "--tokens", "60"]
    options += ["--rounds", "1", "--seconds", "0.3", "--connections", "8", "--null-connections", "8"]
    options += ["--repository", str(bundled_repository()), "--output", str(tmp_path)]
    status, output = finished("bench", *options, timeout=240)
    assert status == 0, output
    document = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert (document["settings"]["tokens"], document["settings"]["texts"]) == (60, 128)
    assert document["settings"]["load_generator"] == "our own asyncio client", (
        "wrk drops what is due at the end"
    )
    assert document["settings"]["tokens_mean"] == pytest.approx(60, abs=0.5)
    assert document["settings"]["peers"]["largest_difference"] <= 1e-4
    assert len([row for row in document["ways"] if row["section"] == "peers"]) == 6
    report = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert "## Beside other servers of the same model, texts of about 60 tokens" in report
    assert "128 texts of 60" in report


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_a_lost_terminal_end_the_peers_as_well(tmp_path: Path, number: signal.Signals) -> None:
    require_peers()
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("the tests run under nohup, and so does the bench")
    options = ["--sections", "peers", "--peers", "mosec", "--seconds", "30", "--output", str(tmp_path)]
    with start(
        "bench", *options, "--repository", str(bundled_repository()), cwd=None, TMPDIR=str(tmp_path)
    ) as process:
        bench_process = psutil.Process(process.pid)

        def working_peers() -> int:
            """Processes below the first one of a peer."""
            found = 0
            for each in bench_process.children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # it has ended just now
                    found += "mosec" in " ".join(each.cmdline()) and each.ppid() != process.pid
            return found

        try:
            assert wait_until(lambda: working_peers() >= 2, 60)
            family = bench_process.children(recursive=True)
            process.send_signal(number)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode != 0
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert not list(tmp_path.iterdir())
