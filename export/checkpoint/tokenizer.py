"""The checkpoint's tokenizer as one ``tokenizer.json``, converted where it is stored otherwise."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.checkpoint.files import display_name, require
from export.errors import CheckpointError

FILE = "tokenizer.json"
# What transformers can build a fast tokenizer from.
_SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
_SOURCES = ("vocab.txt", "vocab.json", *_SENTENCEPIECE)
_EXTRA = "pip install 'tritonflare[convert]'"


def tokenizer_file(folder: Path, work: Path | None) -> Path:
    """The folder's ``tokenizer.json``, or one converted by transformers and written to ``work``.

    Args:
        folder: the checkpoint, never written to.
        work: where a converted file goes; None converts nothing.

    Raises:
        CheckpointError: there is no tokenizer, or transformers is needed and not installed.
    """
    if work is None or (folder / FILE).exists() or not any((folder / name).exists() for name in _SOURCES):
        return require(folder, FILE)
    needed = ["transformers"]
    if any((folder / name).exists() for name in _SENTENCEPIECE):
        needed.append("sentencepiece")
    if not all(importlib.util.find_spec(package) for package in needed):
        raise CheckpointError(
            f"{display_name(folder)} has no {FILE}, and converting its vocabulary needs "
            f"{' and '.join(needed)}: {_EXTRA}."
        )
    return _convert(folder, work)


def _convert(folder: Path, work: Path) -> Path:
    # Heavy, and only here: most checkpoints bring a tokenizer.json.
    import transformers  # noqa: PLC0415

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            str(folder), use_fast=True, local_files_only=True, trust_remote_code=False
        )
    except ImportError as error:
        raise CheckpointError(
            f"converting the tokenizer of {display_name(folder)} needs more packages: {_EXTRA}."
        ) from error
    except Exception as error:  # whatever transformers raises over files that others wrote
        raise _unreadable(folder, error) from error
    finally:
        transformers.logging.set_verbosity(level)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(
            f"the tokenizer of {display_name(folder)} exists in Python only; a {FILE} is needed to serve it."
        )
    work.mkdir(parents=True, exist_ok=True)
    file = work / FILE
    backend.save(str(file))
    return file


def _unreadable(folder: Path, error: Exception) -> CheckpointError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return CheckpointError(f"the tokenizer of {display_name(folder)} cannot be read ({reason}).")


def load_tokenizer(file: Path) -> Tokenizer:
    """A tokenizer that neither pads nor truncates, whatever its file asks for.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise _unreadable(file.parent, error) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def check_ids(tokenizer: Tokenizer, name: str, vocabulary: int, pad_id: int) -> None:
    """Raises CheckpointError if the tokenizer can give an id the model has no row for, or no padding."""
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= vocabulary:
        raise CheckpointError(
            f"{name}: the tokenizer gives token ids up to {largest}, the model knows {vocabulary}; "
            "they do not belong together."
        )
    if tokenizer.id_to_token(pad_id) is None:
        raise CheckpointError(
            f"{name}: config.json says pad_token_id is {pad_id}, which is no token of its tokenizer."
        )
