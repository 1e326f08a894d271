"""A running check: what it is told, and what it tells."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    @property
    def budgets(self) -> Path:
        """The repository of the same model with other budgets, which only the bench serves."""
        return self.work / "budgets"


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
