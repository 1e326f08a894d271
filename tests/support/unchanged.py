"""Small exports to be compared with, and why one would be done again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from export.plan import ExportPlan
from export.record import ExportNeeded, unchanged_export
from export.run import run_export
from tests.support.small_checkpoints import LENIENT, write_checkpoint


def plan_in(folder: Path, target: str = "cpu") -> ExportPlan:
    return ExportPlan(
        folder / "mood",
        folder / "models",
        folder / "artefacts",
        target=target,
        limits=LENIENT,
        timing=None,
        all_precisions=False,
    )


def exported(folder: Path, target: str) -> Path:
    write_checkpoint(folder / "mood", labels=3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "export.evaluation.plots", None)
        run_export(plan_in(folder, target))
    return folder


def reason(plan: ExportPlan) -> str:
    with pytest.raises(ExportNeeded) as needed:
        unchanged_export(plan)
    return str(needed.value)


def replace(file: Path) -> None:
    """Other content of the same length; a hard link to the artefact is left alone."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
