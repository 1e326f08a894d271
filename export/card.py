"""``tritonflare.json`` in a checkpoint's folder: the model's public name, description and date."""

from __future__ import annotations

from pathlib import Path

from export.checkpoint.files import display_name, read_object
from export.errors import CheckpointError

CARD = "tritonflare.json"
_KEYS = ("name", "description", "created_at")


def read_card(folder: Path) -> dict[str, str]:
    """The values that a folder's card gives; empty without a card.

    Raises:
        CheckpointError: it is no JSON object, or a value is not text.
    """
    if not (folder / CARD).is_file():
        return {}
    given = read_object(folder, CARD)
    if not all(isinstance(given.get(key, ""), str) for key in _KEYS):
        raise CheckpointError(
            f"{display_name(folder)}/{CARD} must be an object with text values for {', '.join(_KEYS)}."
        )
    return {key: given[key] for key in _KEYS if key in given}


def default_name(checkpoint: str) -> str:
    """The public name of a checkpoint without a card."""
    return f"@local/{checkpoint}"
