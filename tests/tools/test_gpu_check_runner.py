"""How the checks of a GPU share their time, and what a check that crashes or hangs does to the others."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedded.errors import EmbeddedError
from tools.gpu_check import child, runner
from tools.gpu_check.job import CheckFailed, CheckSkipped, Job, Settings
from tools.gpu_check.plan import CHECKS, Check, limit_s
from tritonflare.progress import Steps

_PASSES = """
import json, sys
open(sys.argv[1], "w").write(json.dumps(
    {"status": "passed", "found": "Good.", "figures": {"n": 1}, "rows": [], "left_out": []}
))
"""
_CRASHES = "import os; os.kill(os.getpid(), 11)"
_HANGS = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(json.dumps(
    {"status": "running", "found": "", "figures": {}, "rows": [{"rate": 5}], "left_out": []}
))
time.sleep(600)
"""
_PROGRAMS = {"passes": _PASSES, "crashes": _CRASHES, "hangs": _HANGS, "after": _PASSES, "needs": _PASSES}


def _checks(*names: str, most_s: float = 30, **needs: tuple[str, ...]) -> list[Check]:
    return [Check(name, name.title(), "none:none", most_s, 1, needs.get(name, ())) for name in names]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Checks are small programs, and those that ignore SIGTERM are killed at once."""

    def command(name: str, _settings: Settings, file: Path, _ends_s: float) -> list[str]:
        return [sys.executable, "-c", _PROGRAMS[name], str(file)]

    monkeypatch.setattr(runner, "command", command)
    monkeypatch.setattr(runner, "_STOPS_S", 0.5)
    return Settings("cpu", True, tmp_path)


def test_a_crash_and_a_check_that_hangs_end_no_other(settings: Settings) -> None:
    began = time.monotonic()
    checks = _checks("crashes", "hangs", "passes", most_s=4)
    crashed, hung, passed = runner.run_checks(settings, 60, Steps(), checks)
    assert time.monotonic() - began < 30
    assert crashed["status"] == "failed"
    assert crashed["found"] == "Its process ended by itself (-11)."
    assert hung["status"] == "out of time"
    assert hung["rows"] == [{"rate": 5}], "what was found before is kept"
    assert (passed["status"], passed["found"], passed["figures"]) == ("passed", "Good.", {"n": 1})


def test_what_a_check_needs_must_have_passed(settings: Settings) -> None:
    checks = _checks("crashes", "needs", "passes", "after", needs=("crashes",), after=("passes",))
    found = {each["name"]: each for each in runner.run_checks(settings, 60, Steps(), checks)}
    assert found["needs"]["status"] == "skipped"
    assert found["needs"]["found"] == "It needs what was not done: crashes."
    assert found["after"]["status"] == "passed"


def test_without_time_a_check_is_skipped(settings: Settings) -> None:
    (found,) = runner.run_checks(settings, 1.0, Steps(), _checks("passes"))
    assert (found["status"], found["found"]) == ("skipped", "No time was left.")


def test_every_check_leaves_those_behind_it_what_they_need() -> None:
    left = 480.0
    for check in CHECKS:
        limit = limit_s(check, left, 480)
        assert limit >= check.least_s, check.name
        left -= limit
    assert left >= 0
    # The last one takes all that the others have left.
    assert limit_s(CHECKS[-1], 300, 480) == 300
    # In a shorter run everything is less.
    assert limit_s(CHECKS[0], 30, 60) < limit_s(CHECKS[0], 480, 480)


def test_all_checks_are_functions() -> None:
    for check in CHECKS:
        module, _, function = check.runs.partition(":")
        assert (runner.ROOT / "tools" / "gpu_check" / f"{module}.py").is_file()
        text = (runner.ROOT / "tools" / "gpu_check" / f"{module}.py").read_text()
        assert f"def {function}(job: Job) -> str:" in text


def test_what_a_check_finds_is_on_disk_at_once(tmp_path: Path) -> None:
    job = Job(Settings("cpu", True, tmp_path), tmp_path / "one.json", time.monotonic() + 10)
    job.row(rate=3)
    job.figures(version="1")
    job.leave_out("a way: no time")
    found = json.loads((tmp_path / "one.json").read_text())
    assert found == {
        "status": "running",
        "found": "",
        "figures": {"version": "1"},
        "rows": [{"rate": 3}],
        "left_out": ["a way: no time"],
    }
    assert 8 < job.left_s <= 10


@pytest.mark.parametrize(
    ("error", "status", "found"),
    [
        (CheckFailed("It is wrong."), "failed", "It is wrong."),
        (CheckSkipped("It is not here."), "skipped", "It is not here."),
        (EmbeddedError("No driver; install one.\nlog: /a/path"), "failed", "No driver; install one."),
        (OSError("/secret/path"), "failed", "It ended with OSError; its log has the rest."),
    ],
)
def test_how_a_check_ends_is_told_without_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, found: str
) -> None:
    def fails(_job: Job) -> str:
        raise error

    monkeypatch.setattr("tools.gpu_check.plans.build", fails)
    monkeypatch.setattr(child, "end_in_order", lambda: None)
    settings = Settings("cuda", False, tmp_path)
    words = child.command("plan", settings, tmp_path / "plan.json", time.monotonic() + 5)
    assert words[:4] == [sys.executable, "-m", "tools.gpu_check.child", "plan"]
    child.main(words[3], words[4])
    told = json.loads((tmp_path / "plan.json").read_text())
    assert (told["status"], told["found"]) == (status, found)


def test_the_command_runs_a_check_and_knows_its_errors(tmp_path: Path) -> None:
    """As a program, because a module that runs as ``__main__`` has classes of its own."""
    settings = Settings("cpu", True, tmp_path)
    words = child.command("plan", settings, tmp_path / "plan.json", time.monotonic() + 60)
    subprocess.run(words, cwd=runner.ROOT, check=True, timeout=100)
    told = json.loads((tmp_path / "plan.json").read_text())
    assert (told["status"], told["found"]) == ("skipped", "A TensorRT plan is built on a GPU only.")
