"""Files of a checkpoint folder: there or not, JSON or not, and their digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from export.errors import CheckpointError

_HUB_CACHE = "models--"


def display_name(folder: Path) -> str:
    """What to call a checkpoint: ``org/name`` inside the hub's cache, else the folder's name."""
    folder = folder.absolute()
    model = folder.parent.parent.name
    if folder.parent.name == "snapshots" and model.startswith(_HUB_CACHE):
        return model.removeprefix(_HUB_CACHE).replace("--", "/")
    return folder.resolve().name


def require(folder: Path, name: str) -> Path:
    """The file's path; raises CheckpointError if it is missing or empty."""
    path = folder / name
    if not path.is_file() or path.stat().st_size == 0:
        raise CheckpointError(
            f"{display_name(folder)} has no {name}, or an empty one; give a Hugging Face folder that has it."
        )
    return path


def check_readable(path: Path) -> None:
    """Raises CheckpointError if the file cannot be opened, as one of another user's."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise _cannot_be_read(path, error) from error


def _cannot_be_read(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{display_name(path.parent)}/{path.name} cannot be read: {error.strerror}.")


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object; raises CheckpointError if the file is missing or holds anything else."""
    path = require(folder, name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # JSON can spell half a character, which no configuration and no terminal can hold.
        json.dumps(content, ensure_ascii=False).encode()
    except OSError as error:
        raise _cannot_be_read(path, error) from error
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"{display_name(folder)}/{name} holds half a character (a lone surrogate); take it out."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{display_name(folder)}/{name} is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{display_name(folder)}/{name} holds no JSON object.")
    return content


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
