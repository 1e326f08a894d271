"""Runs the checks one after the other, each in a process of its own and no longer than its time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from embedded import leftovers
from tools.gpu_check.child import command
from tools.gpu_check.job import FAILED, PASSED, RUNNING, SKIPPED, Settings
from tools.gpu_check.plan import CHECKS, Check, limit_s
from tritonflare.progress import Steps

ROOT = Path(__file__).parents[2]
OUT_OF_TIME = "out of time"
_STOPS_S = 8.0
"""For servers to be stopped in order; then they are killed."""
_POLL_S = 0.1


def run_checks(
    settings: Settings, seconds: float, steps: Steps, checks: Sequence[Check] = CHECKS
) -> list[dict[str, Any]]:
    """Run all checks; none ends the others, and together they take no longer than ``seconds``.

    Returns:
        What each found: name, title, status, found, seconds, limit_s, figures, rows, left_out. Its log is
        ``NAME.log`` in the folder of the settings.
    """
    ends_s = time.monotonic() + seconds
    results: list[dict[str, Any]] = []
    for check in checks:
        status = {result["name"]: result["status"] for result in results}
        steps.step(check.title)
        # What is killed takes time as well.
        limit = limit_s(check, ends_s - _STOPS_S - time.monotonic(), seconds, checks)
        missing = [name for name in check.needs if status.get(name, PASSED) != PASSED]
        began = time.monotonic()
        if missing:
            found = _empty(SKIPPED, f"It needs what was not done: {', '.join(missing)}.")
        elif limit < 1:
            found = _empty(SKIPPED, "No time was left.")
        else:
            found = _run(check, settings, limit, steps)
        taken = time.monotonic() - began
        about = {"name": check.name, "title": check.title}
        results.append({**about, **found, "seconds": round(taken, 1), "limit_s": round(limit, 1)})
    return results


def _run(check: Check, settings: Settings, limit: float, steps: Steps) -> dict[str, Any]:
    file = settings.work / f"{check.name}.json"
    began = time.monotonic()
    with (settings.work / f"{check.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command(check.name, settings, file, began + limit),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        late = _wait(process, began, limit, steps)
        if late:
            _end(process)
        # What a killed check has left behind would hold memory of the GPU.
        leftovers.sweep()
    found = _read(file)
    if found["status"] == RUNNING:
        if late:
            return found | {"status": OUT_OF_TIME, "found": f"It was ended after {limit:.0f} s."}
        return found | {"status": FAILED, "found": f"Its process ended by itself ({process.returncode})."}
    return found


def _wait(process: subprocess.Popen[bytes], began: float, limit: float, steps: Steps) -> bool:
    """Wait for the end; tell whether the time was over before."""
    while process.poll() is None:
        taken = time.monotonic() - began
        if taken > limit:
            return True
        steps.advance(int(taken), int(limit) + 1)
        time.sleep(_POLL_S)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a check and the servers that it started; one that hangs in the driver is left to the kernel."""
    for number, patience in ((signal.SIGTERM, _STOPS_S), (signal.SIGKILL, 1.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _empty(RUNNING, "")
    return found


def _empty(status: str, found: str) -> dict[str, Any]:
    return {"status": status, "found": found, "figures": {}, "rows": [], "left_out": []}
