"""A small random reranker and a small random classifier, exported side by side."""

from __future__ import annotations

from pathlib import Path

from export.plan import ExportPlan
from export.run import run_export
from tests.support.fake_triton import RERANKER
from tests.support.small_checkpoints import LENIENT, POSITIONS, write_checkpoint

CLASSIFIER = "@local/mood"
RERANKER_TOKENS = POSITIONS


def reranker_repository(folder: Path) -> Path:
    """A model repository with both, in FP32; the reranker reads token types, as BERT's do."""
    checkpoints = {CLASSIFIER: (2, "distilbert"), RERANKER: (1, "bert")}
    for name, (labels, family) in checkpoints.items():
        source = write_checkpoint(folder / f"{family}-checkpoint", labels=labels, family=family)
        plan = ExportPlan(
            source,
            folder / "repository",
            folder / "artefacts",
            name=name,
            precision="fp32",
            timing=None,
            limits=LENIENT,
        )
        run_export(plan)
    return folder / "repository"
