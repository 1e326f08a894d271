"""A tokenizer.json that already does what the other files of the checkpoint ask for.

The rules are written here rather than asked of transformers: they need nothing but ``tokenizers``, which
serving needs too, and the same checkpoint gives the same bytes whichever version is installed. The tests
compare them with ``AutoTokenizer``, class by class and option by option. Tokenizers of other classes go
through transformers itself (``export/checkpoint/tokenizer.py``), and end in ``publishable`` as well.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from export.checkpoint.files import display_name
from export.checkpoint.tokenizer_classes import Json, TokenizerClass
from export.checkpoint.tokenizer_options import CONFIG, TokenizerOptions, read_options
from export.errors import CheckpointError

_log = logging.getLogger(__name__)

# What an option may change in a part of tokenizer.json, and what no id depends on.
_OPTIONS = {
    "add_prefix_space", "handle_chinese_chars", "lowercase", "merges", "pair", "strip_accents",
    "trim_offsets", "type_id", "vocab",
}  # fmt: skip
_OTHER_PARTS = (
    "%s: tokenizer.json has another %s than a %s of transformers 5 builds; the tokens are those of "
    'transformers 5. If it was trained with transformers 4, write "tokenizer_class": '
    '"PreTrainedTokenizerFast" into %s.'
)
_PREFIX_SPACE = (
    "%s: tokenizer.json sets add_prefix_space is %s and transformers 5 obeys it; transformers 4 sets what %s "
    "says, which is %s. The tokens are those of transformers 5."
)
_PARTS = {"normalizer": "normalizer", "pre_tokenizer": "pre-tokenizer", "model": "model"}


def apply_options(
    folder: Path,
    file: Json,
    known: TokenizerClass,
    vocabulary: int,
    max_tokens: int,
    *,
    pairs: bool = False,
) -> Json:
    """tokenizer.json with everything applied; equal to ``file`` where nothing has to change.

    Args:
        folder: the checkpoint.
        file: its tokenizer.json, as ``tokenizers`` writes it.
        known: the class of its tokenizer.
        vocabulary: how many tokens the model has a row for.
        max_tokens: the model's limit.
        pairs: whether it has to make pairs of texts as well.

    Raises:
        CheckpointError: an option is not understood, or cannot be applied exactly.
    """
    name, model = display_name(folder), file["model"]
    if known.model not in (None, model["type"]):
        raise CheckpointError(
            f"{name}: its tokenizer is a {known.name}, which needs a {known.model} model, but tokenizer.json "
            f'holds {model["type"]}; if that file is right, write "tokenizer_class": '
            f'"PreTrainedTokenizerFast" into {CONFIG}.'
        )
    refuse_dropout(name, model.get("dropout"))
    options = read_options(folder, known, file)
    try:
        tokenizer = _built(file, known, options, pairs=pairs)
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(
            f"{name}: its options and tokenizer.json do not make a {known.name} "
            f"({str(error).splitlines()[0]})."
        ) from error
    refuse_token_types(name, tokenizer, options.token_types and not pairs)
    side = options.side or (file["truncation"] or {}).get("direction", "right").lower()
    result = publishable(name, tokenizer, side, options.split, max_tokens)
    result["added_tokens"] = [
        token
        for token in result["added_tokens"]
        # A class adds its own special tokens unasked; one without a row would only break the model.
        if token["id"] < vocabulary or token["content"] in options.declared
    ]
    other = _other_parts(file, result, options.split, pairs=pairs)
    if other:
        _log.warning(_OTHER_PARTS, name, " and ".join(other), known.name, CONFIG)
    space = options.values.get("add_prefix_space")
    if known.model is None and (file["pre_tokenizer"] or {}).get("add_prefix_space", space) != space:
        _log.warning(_PREFIX_SPACE, name, not space, CONFIG, space)
    return file if _same(file, result, pairs=pairs) else result


def _built(file: Json, known: TokenizerClass, options: TokenizerOptions, *, pairs: bool) -> Tokenizer:
    anew: Json = {"added_tokens": []} if known.model else {}
    content = file | {"truncation": None, "padding": None} | anew
    content |= known.parts(file, options.values, options.tokens)
    tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_tokens(_tokens_to_add(tokenizer, options))
    process = (pairs and known.pair_processor) or known.post_processor
    tokenizer.post_processor = process(tokenizer, options.values, options.tokens)
    return tokenizer


def _tokens_to_add(tokenizer: Tokenizer, options: TokenizerOptions) -> list[AddedToken]:
    """In the order of ``TokenizersBackend.__init__``, which decides about the ids of new ones."""
    present = tokenizer.get_added_tokens_decoder()
    same = {repr(token) for token in present.values()}
    wanted: list[Any] = [token for token in options.added if repr(token) not in same]
    contents = {str(token) for token in [*present.values(), *wanted]}
    named = [token for token in options.tokens.values() if token]
    for token in [*named, *options.extra]:
        if str(token) not in contents and token not in wanted:
            wanted.append(token)
    for index, token in enumerate(wanted):
        if isinstance(token, str):
            wanted[index] = AddedToken(token, special=True)
        elif str(token) in map(str, named):
            token.special = True
    return wanted


def publishable(name: str, tokenizer: Tokenizer, side: str, split: bool, max_tokens: int) -> Json:
    """tokenizer.json of a tokenizer, with the side and without the special tokens that are to be split.

    Args:
        name: what to call the checkpoint.
        tokenizer: changed: it does not pad, and truncates only on the left.
        side: "left" or "right"; the latter is what a tokenizer.json without truncation means.
        split: whether special tokens inside a text are ordinary text.
        max_tokens: the model's limit.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if side == "left":
        tokenizer.enable_truncation(max_tokens, direction="left")
    content: Json = json.loads(tokenizer.to_str())
    if split:
        others = [token["content"] for token in content["added_tokens"] if not token["special"]]
        if others:
            # One may overlap with a special token, which still hides it though it is split itself.
            raise CheckpointError(
                f"{name}/{CONFIG}: split_special_tokens cannot be expressed in tokenizer.json beside added "
                f"tokens that are not special, such as {others[0]!r}; set it to false, or take them out."
            )
        content["added_tokens"] = []
    return content


def refuse_dropout(name: str, dropout: float | None) -> None:
    """Raises CheckpointError if a model of merges leaves some out at random."""
    if dropout:
        raise CheckpointError(
            f"{name}: tokenizer.json drops merges at random (dropout is {dropout}), so no text "
            "would get the same tokens twice; set it to null."
        )


def refuse_token_types(name: str, tokenizer: Tokenizer, used: bool) -> None:
    """Raises CheckpointError if a text alone has token types other than 0 and the model is given them."""
    try:
        types = tokenizer.encode("a").type_ids
    except Exception:  # it fails on ordinary text, which is found out when the exporter tokenizes some
        return
    if used and any(types):
        raise CheckpointError(
            f"{name}: its tokenizer gives a text token types other than 0, and the model reads them; only "
            "models without them can be served."
        )


def _same(file: Json, result: Json, *, pairs: bool) -> bool:
    """Whether no id depends on what differs, such as padding, decoder and pairs that nobody makes."""

    def read(content: Json) -> Any:
        left = (content["truncation"] or {}).get("direction") == "Left"
        kept = {key: content[key] for key in ("added_tokens", "post_processor", *_PARTS)}
        return left, _without(kept, {"trim_offsets"} if pairs else {"pair", "trim_offsets"})

    return bool(read(file) == read(result))


def _without(part: Any, keys: set[str]) -> Any:
    """The part without some keys, and without what is null or empty, as BPE's prefix may be."""
    if isinstance(part, dict):
        pairs = {key: _without(value, keys) for key, value in part.items() if key not in keys}
        return {key: value for key, value in pairs.items() if value not in (None, "")}
    if isinstance(part, list):
        return [_without(value, keys) for value in part]
    return part


def _other_parts(file: Json, result: Json, split: bool, *, pairs: bool) -> list[str]:
    """What a class builds otherwise than its file has it, options aside: transformers 4 takes the file."""
    other = [
        label
        for key, label in _PARTS.items()
        if _without(file[key], _OPTIONS) != _without(result[key], _OPTIONS)
    ]
    if _frame(file, pairs=pairs) != _frame(result, pairs=pairs):
        other.append("post-processor")
    kept = {token["content"] for token in result["added_tokens"]}
    if not split and any(token["content"] not in kept for token in file["added_tokens"]):
        other.append("list of added tokens")
    return other


def _frame(content: Json, *, pairs: bool) -> list[int]:
    """The ids that are put around a text, or around two."""
    bare = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    empty = content | {"added_tokens": [], "model": bare, "normalizer": None, "pre_tokenizer": None}
    tokenizer = Tokenizer.from_str(json.dumps(empty | {"truncation": None, "padding": None}))
    ids: list[int] = tokenizer.encode("", "" if pairs else None).ids
    return ids
