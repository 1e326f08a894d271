"""Where things lie by default, whichever folder the command is run in, and the command itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from platformdirs import user_data_path

_BUNDLED = "checkpoints/minilm-sst2"


def _home() -> Path:
    """Return the folder that holds models, tokens and caches.

    ``TRITONFLARE_HOME`` if it is set, else the checkout that this package is installed from
    (``pip install --editable``), else the user's data folder.
    """
    if given := os.environ.get("TRITONFLARE_HOME"):
        return Path(given).absolute()
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "Makefile").is_file() and (checkout / _BUNDLED).is_dir():
        return checkout
    return user_data_path("tritonflare")


def _default(place: str) -> Path:
    """Return a place below the home, relative where the command is run in it: messages show it."""
    try:
        return Path(place) if Path.cwd() == HOME else HOME / place
    except FileNotFoundError:  # the working directory was removed
        return HOME / place


HOME = _home()
CHECKPOINT = _default(_BUNDLED)
REPOSITORY = _default("model_repository")
ARTEFACTS = _default(".cache/artefacts")
TOKENS = _default(".state/tokens")
BATCHES = _default(".state/batches")
BENCH = _default(".cache/bench")
PEERS = _default(".venv-peers")


def runnable(message: str) -> str:
    """Spell commands in ``message``, such as `tritonflare export`, as this program was called."""
    program = sys.argv[0]
    called = f"{sys.executable} -m tritonflare" if program.endswith("__main__.py") else program
    return message.replace("`tritonflare ", f"`{called} ")
