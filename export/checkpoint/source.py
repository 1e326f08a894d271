"""What SOURCE means: a folder on this machine, or a model's id on the Hugging Face hub.

``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` mean what they mean to the
hub's own library. Only configs, tokenizers and safetensors are ever downloaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import CheckpointError

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile("[0-9a-f]{40}")
_ANSWER_WITHIN = 10.0  # seconds until the hub counts as unreachable
_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
)


def resolve_source(source: str, revision: str | None = None, *, offline: bool = False) -> Path:
    """The folder that SOURCE names; a hub id is downloaded into the hub's cache first.

    Args:
        source: a path, or ``org/name``. What exists as a folder is never looked up.
        revision: branch, tag or commit on the hub; None is its main branch.
        offline: use the cache alone.

    Raises:
        CheckpointError: no such folder, or the hub cannot be reached, does not know the model,
            or does not let this account have it.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{source} is a file; give the folder that holds it.")
    if not _HUB_ID.fullmatch(source):
        raise CheckpointError(
            f"there is no folder {source}; give a Hugging Face folder, or a hub id such as org/name."
        )
    return _cached(source, revision) if offline else _downloaded(source, revision)


def hub_commit(source: str, revision: str | None = None) -> str | None:
    """The commit that an export of a hub id would download now; None if the hub cannot be reached.

    Raises:
        CheckpointError: as resolve_source.
    """
    if revision and _COMMIT.fullmatch(revision):
        return revision
    found = _model_on_the_hub(source, revision)
    return found.sha if found else None


def _cached(source: str, revision: str | None) -> Path:
    # Imported here: most exports read a folder and never need the hub's library.
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        return Path(
            snapshot_download(source, revision=revision, allow_patterns=list(_FILES), local_files_only=True)
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source} is no folder here, and the hub cannot be reached to download it; copy the model to "
            "this machine and give its folder, or set HF_ENDPOINT to a mirror."
        ) from error


def _downloaded(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    disable_progress_bars()
    found = _model_on_the_hub(source, revision)
    if found is None:
        return _cached(source, revision)
    if not any(file.rfilename.endswith(".safetensors") for file in found.siblings or ()):
        raise CheckpointError(
            f"{source} has no safetensors weights on the hub, and pickled ones can run code when they are "
            "read; convert it where you trust it, with transformers' save_pretrained, and give that folder."
        )
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(_FILES)))
    except Exception as error:  # dozens of kinds, and their texts quote addresses
        raise CheckpointError(
            f"the download of {source} stopped ({type(error).__name__}); run it again, and it goes on."
        ) from error


def _model_on_the_hub(source: str, revision: str | None) -> ModelInfo | None:
    """The model's commit and files; None if the hub cannot be reached.

    Raises:
        CheckpointError: the hub refuses, or does not have it.
    """
    from huggingface_hub import HfApi, errors  # noqa: PLC0415

    try:
        # The download itself has no timeout for a silent hub.
        return HfApi().model_info(source, revision=revision, timeout=_ANSWER_WITHIN)
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{source} is gated; accept its terms on the hub and set HF_TOKEN to a token of that account."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"the hub has {source}, but no revision {revision!r} of it.") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise CheckpointError(
            f"{source} is neither a folder here nor a model that the hub shows to this account; check the "
            "name, and set HF_TOKEN if it is private."
        ) from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise CheckpointError(
                f"the hub refused to show {source} (HTTP {error.response.status_code}); check HF_TOKEN and "
                "HF_ENDPOINT."
            ) from error
        return None
    except Exception:  # no network, no name, no answer in time, offline by setting
        return None
