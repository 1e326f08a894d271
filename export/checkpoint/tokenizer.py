"""The checkpoint's tokenizer as one ``tokenizer.json``, converted where it is stored otherwise."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.checkpoint.files import display_name, require
from export.checkpoint.model import Checkpoint
from export.errors import CheckpointError

FILE = "tokenizer.json"
# What transformers can build a fast tokenizer from.
_SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
_SOURCES = ("vocab.txt", "vocab.json", *_SENTENCEPIECE)
_EXTRA = ".venv/bin/pip install -e '.[convert]'"


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
    return CheckpointError(f"the tokenizer of {display_name(folder)} cannot be read ({_first_line(error)}).")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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


def check_limit(tokenizer: Tokenizer, name: str, max_tokens: int) -> None:
    """Raises CheckpointError if the special tokens alone fill ``max_tokens``."""
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if max_tokens <= special:
        raise CheckpointError(
            f"{name} takes {max(max_tokens, 0)} tokens, and its tokenizer adds {special} to every text; "
            "none are left for the text itself."
        )


def token_rows(tokenizer: Tokenizer, texts: Sequence[str], checkpoint: Checkpoint) -> list[list[int]]:
    """Token ids of each text, none of them empty, too long or beyond the model's vocabulary.

    The vocabulary alone does not say it (``check_ids``): special tokens have ids of their own in
    the post-processor, and some models fail on words they do not know.

    Args:
        tokenizer: truncates to the checkpoint's ``max_tokens``.
        texts: of any length.
        checkpoint: whose tokenizer it is.

    Raises:
        CheckpointError: the tokenizer fails, or gives a row that the model cannot take.
    """
    try:
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(
            f"the tokenizer of {checkpoint.name} cannot encode every text ({_first_line(error)})."
        ) from error
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise CheckpointError(
                f"{checkpoint.name}: the tokenizer makes no tokens of {text[:40]!r}; its {FILE} needs a "
                "post_processor that adds the special tokens."
            )
        if len(row) > checkpoint.max_tokens:
            raise CheckpointError(
                f"{checkpoint.name}: the tokenizer makes {len(row)} tokens of {text[:40]!r} where "
                f"{checkpoint.max_tokens} are allowed."
            )
        if max(row) >= checkpoint.vocabulary:
            raise CheckpointError(
                f"{checkpoint.name}: the tokenizer gives token id {max(row)}, the model knows "
                f"{checkpoint.vocabulary}; they do not belong together."
            )
    return rows
