"""Default paths, relative to the folder that the command is run in, and the name of the command itself."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKPOINT = Path("checkpoints/minilm-sst2")
REPOSITORY = Path("model_repository")
ARTEFACTS = Path(".cache/artefacts")
TOKENS = Path(".state/tokens")
BENCH = Path(".cache/bench")


def runnable(message: str) -> str:
    """Rewrite commands in ``message``, such as `tritonflare export`, to the way this program was called."""
    program = sys.argv[0]
    called = f"{sys.executable} -m tritonflare" if program.endswith("__main__.py") else program
    return message.replace("`tritonflare ", f"`{called} ")
