"""The checkpoint's tokenizer as one ``tokenizer.json`` with all its options in it, converted where needed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.checkpoint.files import display_name, read_object, require
from export.checkpoint.model import Checkpoint
from export.checkpoint.tokenizer_apply import apply_options, publishable, refuse_dropout, refuse_token_types
from export.checkpoint.tokenizer_classes import tokenizer_class
from export.checkpoint.tokenizer_options import named_class
from export.errors import CheckpointError

FILE = "tokenizer.json"
# What transformers can build a fast tokenizer from.
_SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
_SOURCES = ("vocab.txt", "vocab.json", *_SENTENCEPIECE)
_EXTRA = ".venv/bin/pip install -e '.[convert]'"


def tokenizer_file(
    folder: Path,
    work: Path | None,
    vocabulary: int = sys.maxsize,
    max_tokens: int = 512,
    *,
    pairs: bool = False,
) -> Path:
    """The folder's ``tokenizer.json``, or one written to ``work`` that gives the tokens of transformers.

    The folder's own serves if no option of the checkpoint changes it. Classes that are not
    written here, and vocabularies of older formats, are converted by transformers.

    Args:
        folder: the checkpoint, never written to.
        work: where another file goes; None writes and converts nothing.
        vocabulary: how many tokens the model has a row for.
        max_tokens: the model's limit.
        pairs: whether it has to make pairs of texts as well.

    Raises:
        CheckpointError: there is no tokenizer, an option cannot be applied exactly, or transformers is
            needed and not installed.
    """
    name = display_name(folder)
    if work is None or (folder / FILE).exists() or not any((folder / file).exists() for file in _SOURCES):
        file = require(folder, FILE)
        config = read_object(folder, "config.json") if (folder / "config.json").is_file() else {}
        model_type, named = named_class(folder, config)
        known = tokenizer_class(model_type, named)
        if known is not None:
            content = _content(file)
            result = apply_options(folder, content, known, vocabulary, max_tokens, pairs=pairs)
            return file if result is content else _write(name, result, work)
        needed = ["transformers"]
        why = f"the tokenizer of {name} is one of {named or model_type}, and reading its options"
    else:
        needed = ["transformers"]
        if any((folder / file).exists() for file in _SENTENCEPIECE):
            needed.append("sentencepiece")
        why = f"{name} has no {FILE}, and converting its vocabulary"
    if not all(importlib.util.find_spec(package) for package in needed):
        raise CheckpointError(f"{why} needs {' and '.join(needed)}: {_EXTRA}.")
    return _write(name, _convert(folder, max_tokens, pairs=pairs), work)


def hands_token_types(folder: Path) -> bool:
    """Whether transformers 5 gives a model the token types of a pair that this tokenizer makes.

    Raises:
        CheckpointError: a file is damaged, or transformers is needed to tell and not installed.
    """
    config = read_object(folder, "config.json") if (folder / "config.json").is_file() else {}
    options = folder / "tokenizer_config.json"
    names = read_object(folder, options.name).get("model_input_names") if options.is_file() else None
    if isinstance(names, list):
        return "token_type_ids" in names
    known = tokenizer_class(*named_class(folder, config))
    if known is not None:
        return known.token_types
    if not importlib.util.find_spec("transformers"):
        raise CheckpointError(
            f"telling whether the tokenizer of {display_name(folder)} gives token types needs transformers: "
            f"{_EXTRA}."
        )
    return "token_type_ids" in _from_transformers(folder).model_input_names


def _write(name: str, content: dict[str, Any], work: Path | None) -> Path:
    if work is None:
        raise CheckpointError(
            f"{name}: its options change {FILE}, and there is no folder to write the result to."
        )
    work.mkdir(parents=True, exist_ok=True)
    file = work / FILE
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
    return file


def _convert(folder: Path, max_tokens: int, *, pairs: bool) -> dict[str, Any]:
    tokenizer = _from_transformers(folder)
    backend, name = getattr(tokenizer, "backend_tokenizer", None), display_name(folder)
    if backend is None:
        raise CheckpointError(
            f"the tokenizer of {name} exists in Python only; a {FILE} is needed to serve it."
        )
    refuse_dropout(name, getattr(backend.model, "dropout", None))
    refuse_token_types(name, backend, "token_type_ids" in tokenizer.model_input_names and not pairs)
    return publishable(
        name, backend, tokenizer.truncation_side, bool(tokenizer.split_special_tokens), max_tokens
    )


def _from_transformers(folder: Path) -> Any:
    # Heavy, and only here: most checkpoints bring a tokenizer.json of a class that is written here.
    import transformers  # noqa: PLC0415

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), use_fast=True, local_files_only=True, trust_remote_code=False
        )
    except ImportError as error:
        raise CheckpointError(
            f"converting the tokenizer of {display_name(folder)} needs more packages: {_EXTRA}."
        ) from error
    except Exception as error:  # transformers raises errors of any type on malformed files
        raise _unreadable(folder, error) from error
    finally:
        transformers.logging.set_verbosity(level)


def _unreadable(folder: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(f"the tokenizer of {display_name(folder)} cannot be read ({_first_line(error)}).")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _read(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises bare Exception, and its PanicException is not even one
        raise _unreadable(file.parent, error) from error


def _content(file: Path) -> dict[str, Any]:
    """tokenizer.json as ``tokenizers`` writes it, but for the ids of added tokens.

    ``tokenizers`` numbers them itself where the file's ids do not fit; transformers adds them to the
    tokenizer it builds in the order of the file's ids.
    """
    content: dict[str, Any] = json.loads(_read(file).to_str())
    added = read_object(file.parent, file.name).get("added_tokens") or []
    known = ("id", *content["added_tokens"][0]) if content["added_tokens"] else ()
    return content | {"added_tokens": [{key: token[key] for key in known if key in token} for token in added]}


def load_tokenizer(file: Path, max_tokens: int | None = None) -> Tokenizer:
    """A tokenizer that does not pad, and truncates to ``max_tokens`` at the side that its file names.

    Args:
        file: a ``tokenizer.json``.
        max_tokens: None does not truncate, even if the file asks for it.

    Raises:
        CheckpointError: the file is damaged.
    """
    tokenizer = _read(file)
    side = (tokenizer.truncation or {}).get("direction", "right")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if max_tokens is not None:
        tokenizer.enable_truncation(max_tokens, direction=side)
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
            f"{name}: config.json sets pad_token_id is {pad_id}, which is no token of its tokenizer."
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

    The vocabulary alone does not tell (``check_ids``): special tokens have ids of their own in
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
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # as in _read
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
