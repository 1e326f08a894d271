"""One check in a process of its own.

A crash of a driver or a GPU that stands still ends this process alone, and what it has found so far is kept.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from embedded.errors import EmbeddedError
from tools.gpu_check.job import FAILED, PASSED, SKIPPED, CheckFailed, CheckSkipped, Job, Settings
from tools.gpu_check.plan import CHECKS
from tritonflare.bench_common import end_in_order


def command(name: str, settings: Settings, file: Path, ends_s: float) -> list[str]:
    """The command that runs a check, for `main` below."""
    told = {**asdict(settings), "work": str(settings.work), "file": str(file), "ends_s": ends_s}
    return [sys.executable, "-m", "tools.gpu_check.child", name, json.dumps(told)]


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
    except EmbeddedError as error:
        # Behind its first line may be Triton's log.
        traceback.print_exc()
        job.end(FAILED, str(error).partition("\n")[0])
    except Exception as error:
        # Into this check's log, not into the report: it may hold paths.
        traceback.print_exc()
        job.end(FAILED, f"It ended with {type(error).__name__}; its log has the rest.")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
