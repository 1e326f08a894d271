"""Where things lie by default, relative to the folder that the command is run in."""

from __future__ import annotations

from pathlib import Path

CHECKPOINT = Path("checkpoints/minilm-sst2")
REPOSITORY = Path("model_repository")
ARTEFACTS = Path(".cache/artefacts")
TOKENS = Path(".state/tokens")
BENCH = Path(".cache/bench")
