"""The whole GPU check in its short form on the CPU, so that the script itself is known to work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export.evaluation.gate import DEFAULT_LIMITS
from tools.gpu_check.models import OTHER_BUDGETS, USUAL_BUDGET
from tools.gpu_check.plan import CHECKS

# The slowest test: about a minute of processor time.
pytestmark = [pytest.mark.needs_triton, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]


def test_the_short_form_on_the_cpu_passes_and_says_what_it_did_not_prove(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.gpu_check", "--device", "cpu", "--short", "--minutes", "6"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    logs = "".join(file.read_text() for file in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + logs

    document = json.loads((tmp_path / "gpu-check.json").read_text())
    checks = {check["name"]: check for check in document["checks"]}
    assert list(checks) == [check.name for check in CHECKS]
    status = {name: check["status"] for name, check in checks.items()}
    assert status == dict.fromkeys(checks, "passed") | {"plan": "skipped"}
    assert {row["precision"] for row in checks["golden"]["rows"]} == {"fp16", "fp32"}
    for row in checks["invariance"]["rows"]:
        assert row["answers"] > 0
        assert row["largest"] <= DEFAULT_LIMITS[row["precision"]].neighbours
    stub = checks["stub"]["figures"]
    assert stub["back_s"] > 0
    assert stub["statuses"]["200"] > 0
    # Groups were halved: the stand-in for the device fails of every larger one.
    assert checks["memory"]["figures"]["times"] > 0
    assert {row["provider"] for row in checks["operators"]["rows"]} == {"CPUExecutionProvider"}
    assert checks["operators"]["figures"]["lengths_instead_of_a_mask_8x64"] > 0
    budgets = {row["budget"] for row in checks["bench"]["rows"] if "budget" in row}
    assert budgets == {str(USUAL_BUDGET), str(OTHER_BUDGETS[0])}

    measured = {(row["way"], row["precision"]) for row in checks["bench"]["rows"]}
    assert {("in-process", "fp16"), ("HTTP", "fp16"), ("HTTP", "fp32"), ("null model", "")} <= measured

    text = (tmp_path / "gpu-check.md").read_text()
    assert text.startswith("## GPU check: a run on the CPU\n")
    assert "Everything that needs a GPU." in text
    assert str(ROOT) not in text + json.dumps(document), "a report shows no paths"
    assert not list(tmp_path.glob("*.log")), "logs are for checks that did not pass"
