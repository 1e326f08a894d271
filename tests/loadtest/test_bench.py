"""``tritonflare bench`` as people run it, in a hurry, on the real tritonserver."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from loadtest.bench import sections
from tests.support.bundled import bundled_repository
from tests.support.servers import finished
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
    # It may be published: nothing of this machine but its processor.
    assert not re.search(r"/(home|root|tmp|work|usr)\b", json.dumps(document))
    assert {file.suffix for file in folder.iterdir()} == {".json", ".md", ".png"}

    against = ("--against", str(folder / "bench.json"), "--sections", "ceiling", "--output", str(folder))
    status, output = finished(
        "bench", *served, "--rounds", "1", "--seconds", "0.1", *against, "--fail-below", "0.9"
    )
    assert status == 1, output
    assert "HTTP under load is unknown" in output
