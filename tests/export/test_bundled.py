"""The bundled checkpoint and the files of the repository that are kept in git."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from export.checkpoint import load_checkpoint
from export.run import ExportPlan, run_export
from tests.texts import CHECKPOINT

ROOT = Path(__file__).parents[2]


def test_the_files_in_git_are_what_an_export_writes(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    run_export(ExportPlan(CHECKPOINT, tmp_path / "models", tmp_path / "artefacts"))
    listed = subprocess.run(
        ["git", "ls-files", "model_repository"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = [Path(line).relative_to("model_repository") for line in listed.stdout.splitlines()]
    compared = [path for path in tracked if path.name in {"config.pbtxt", "model.py"}]
    assert len(compared) == 5
    for path in compared:
        assert (tmp_path / "models" / path).read_text() == (ROOT / "model_repository" / path).read_text(), (
            path
        )
    assert {p.relative_to(tmp_path / "models") for p in (tmp_path / "models").rglob("config.pbtxt")} <= set(
        tracked
    )


def test_the_weights_are_small_enough_for_git() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) < 50e6


def test_the_tokenizer_asks_for_no_padding_and_no_truncation() -> None:
    tokenizer = json.loads((CHECKPOINT / "tokenizer.json").read_text())
    assert tokenizer["padding"] is None
    assert tokenizer["truncation"] is None


def test_the_labels_are_in_the_contracts_order() -> None:
    assert load_checkpoint(CHECKPOINT).labels == ("NEGATIVE", "POSITIVE")
