"""The bundled model in a repository of the tests' own, whatever you serve from ``model_repository/``."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from functools import cache
from pathlib import Path

import pytest

from export.plan import ExportPlan
from export.run import run_export
from tests.support.texts import CHECKPOINT, few_examples

ROOT = Path(__file__).parents[2]
_CACHE = ROOT / ".cache" / "tests"


def export_bundled(
    folder: Path, precision: str = "int8", name: str | None = None, target: str = "cpu"
) -> Path:
    """Publish the bundled model in ``folder/models``; the gate, tested elsewhere, asks about few texts."""
    plan = ExportPlan(
        CHECKPOINT,
        folder / "models",
        folder / precision,
        examples=few_examples(folder),
        all_precisions=False,
        precision=precision,
        name=name,
        target=target,
        timing=None,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.run.ENOUGH_TEXTS", 0)
        run_export(plan)
    return plan.repository


@cache
def bundled_repository() -> Path:
    """The model in INT8, exported once for each state of the exporter and shared by all test processes.

    Read it, serve it, copy it; never publish into it.
    """
    _CACHE.mkdir(parents=True, exist_ok=True)
    folder = _CACHE / f"bundled-{_digest()[:16]}"
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for old in _CACHE.glob("bundled-*"):
                shutil.rmtree(old)
            making = _CACHE / "making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            export_bundled(making)
            making.rename(folder)
    return folder / "models"


def _digest() -> str:
    """Of everything that decides what an export writes: the exporter, its packages and the checkpoint."""
    digest = hashlib.sha256((ROOT / "requirements" / "serve.txt").read_bytes())
    for file in sorted([*(ROOT / "export").rglob("*.py"), *CHECKPOINT.iterdir()]):
        digest.update(f"{file.relative_to(ROOT)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
