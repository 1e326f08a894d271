"""One check in a process of its own: what it is told, and what it tells while it runs.

A crash of a driver or a GPU that stands still ends this process alone, and what it has found so far is kept.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.gpu_check.plan import CHECKS
from tritonflare.bench_common import end_in_order
from tritonflare.progress import Steps

RUNNING, PASSED, FAILED, SKIPPED = "running", "passed", "failed", "skipped"


class CheckFailed(Exception):
    """What should hold does not; the message is one sentence for the report."""


class CheckSkipped(Exception):
    """The check cannot be made here; the message says why in one sentence."""


@dataclass(frozen=True)
class Settings:
    """What all checks are told.

    device: ``cuda`` or ``cpu``. short: few texts, few loads. work: the folder that the checks share.
    """

    device: str
    short: bool
    work: Path

    @property
    def repository(self) -> Path:
        """The model repository that the first checks fill."""
        return self.work / "models"


class Job:
    """A running check; everything that it is given is written to its file at once.

    Args:
        settings: what all checks are told.
        file: where the findings go.
        ends_s: when its time is over, by ``time.monotonic``, which all processes share.
    """

    def __init__(self, settings: Settings, file: Path, ends_s: float) -> None:
        self.settings = settings
        self.steps = Steps()
        self._file = file
        self._ends_s = ends_s
        self._found: dict[str, Any] = {
            "status": RUNNING,
            "found": "",
            "figures": {},
            "rows": [],
            "left_out": [],
        }

    @property
    def left_s(self) -> float:
        """Seconds until its time is over."""
        return self._ends_s - time.monotonic()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What `row` was given so far."""
        return list(self._found["rows"])

    def figures(self, **values: Any) -> None:
        """Add figures, of plain types."""
        self._found["figures"] |= values
        self._write()

    def row(self, **values: Any) -> None:
        """Add a row of figures, of plain types."""
        self._found["rows"].append(values)
        self._write()

    def leave_out(self, sentence: str) -> None:
        """Say what was not tried, and why."""
        self._found["left_out"].append(sentence)
        self._write()

    def end(self, status: str, found: str) -> None:
        """Say how it ended."""
        self._found |= {"status": status, "found": found}
        self._write()

    def _write(self) -> None:
        half = self._file.with_suffix(".part")
        half.write_text(json.dumps(self._found), encoding="utf-8")
        half.replace(self._file)


def start(name: str, settings: Settings, file: Path, ends_s: float) -> list[str]:
    """The command that runs a check, for `main` below."""
    told = {**asdict(settings), "work": str(settings.work), "file": str(file), "ends_s": ends_s}
    return [sys.executable, "-m", "tools.gpu_check.job", name, json.dumps(told)]


def main(name: str, told: str) -> None:
    """Run one check to its end; its exit status tells nothing."""
    given = json.loads(told)
    settings = Settings(given["device"], given["short"], Path(given["work"]))
    job = Job(settings, Path(given["file"]), given["ends_s"])
    end_in_order()
    # Read at the import of ONNX Runtime; otherwise it sends events to its maker.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    module, _, function = next(check.runs for check in CHECKS if check.name == name).partition(":")
    try:
        job.end(PASSED, getattr(importlib.import_module(f"tools.gpu_check.{module}"), function)(job))
    except CheckFailed as failed:
        job.end(FAILED, str(failed))
    except CheckSkipped as skipped:
        job.end(SKIPPED, str(skipped))
    except Exception as error:
        # Into this check's log, not into the report: it may hold paths.
        traceback.print_exc()
        job.end(FAILED, f"It ended with {type(error).__name__}; its log has the rest.")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
