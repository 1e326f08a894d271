"""What tokenizer_config.json, special_tokens_map.json and added_tokens.json set beside tokenizer.json.

Read in the order of transformers 5 (``PreTrainedTokenizerBase._from_pretrained``), which decides what
counts where two files contradict each other. Every key is applied, known to change no token id, or refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from export.checkpoint.files import display_name, read_object
from export.checkpoint.tokenizer_classes import NAMED, Json, TokenizerClass
from export.errors import CheckpointError

CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"

# Options of a class; other classes ignore them.
CLASS_SPECIFIC = (
    "add_prefix_space", "do_lower_case", "keep_accents", "split_by_punct", "strip_accents",
    "tokenize_chinese_chars", "unk_id",
)  # fmt: skip
# Applied for every class, besides every key that ends in "_token" and holds a token.
APPLIED = {
    "tokenizer_class": "chooses the class; without it `tokenizer_class`, then `model_type` of config.json",
    "truncation_side": "long texts keep their end or their beginning; without it as tokenizer.json sets it",
    "split_special_tokens": "special tokens in a text are ordinary text; refused beside other added tokens",
    "added_tokens_decoder": "tokens that tokenizer.json lacks, and flags of those that it has",
    "additional_special_tokens": "more special tokens",
    "extra_special_tokens": "more special tokens",
    "model_specific_special_tokens": "more special tokens",
    "model_input_names": "token types that are not 0 are refused if they are among them",
    "model_max_length": "the longest input, where it is less than the model's positions",
}
WITHOUT_EFFECT = {
    "turn ids into text, or chats into a text": (
        "chat_control_tokens", "chat_template", "clean_up_tokenization_spaces",
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", "errors",
        "response_schema", "response_template", "spaces_between_special_tokens",
    ),
    "pad: a text is scored the same however it is padded": (
        "pad_to_multiple_of", "pad_token_type_id", "padding_side",
    ),
    "defaults that a caller of the tokenizer sets": (
        "max_length", "return_attention_mask", "return_token_type_ids", "stride", "truncation_strategy",
    ),
    "dropped by transformers where there is a tokenizer.json": (
        "add_bos_token", "add_eos_token", "merges_file", "special_tokens_map_file", "tokenizer_file",
        "vocab_file",
    ),
    "character offsets": ("trim_offsets",),
    "tokenizers in Python, and options that no fast tokenizer of these classes reads": (
        "clean_text", "do_basic_tokenize", "do_subword_tokenize", "do_word_tokenize", "full_tokenizer_file",
        "from_slow", "legacy", "never_split", "remove_space", "sp_model_kwargs", "use_fast", "vocab_type",
        "wordpieces_prefix",
    ),
    "where it was loaded from, and how": (
        "_commit_hash", "_name_or_path", "backend", "cache_dir", "device_map", "dtype", "files_loaded",
        "is_local", "local_files_only", "model_type", "name_or_path", "processor_class", "revision",
        "subfolder", "token", "torch_dtype", "transformers_version", "trust_remote_code", "use_auth_token",
        "verbose",
    ),
}  # fmt: skip
REFUSED = {
    "fast_tokenizer_files": "names another file than tokenizer.json",
    "fix_mistral_regex": "exchanges the pre-tokenizer",
    "init_inputs": "passes arguments by position",
    "max_len": "is the old name of model_max_length; write that instead",
}
_IGNORED = frozenset(key for keys in WITHOUT_EFFECT.values() for key in keys)
_SIDES = ("left", "right")
_FLAGS = {"content", "lstrip", "normalized", "rstrip", "single_word", "special"}


@dataclass(frozen=True)
class TokenizerOptions:
    """A checkpoint's tokenizer options outside of tokenizer.json.

    Attributes:
        values: the class's own options, all of them.
        tokens: special tokens by name, the class's defaults included, in the order in which they get ids.
        extra: more special tokens.
        added: tokens of added_tokens_decoder or, where there is none, of added_tokens.json and
            tokenizer.json; in the order of the ids that they give, which transformers does not obey further.
        declared: contents of all tokens that one of the files names.
        side: where long texts are cut; None if the files do not set it.
        split: whether special tokens inside a text are tokenized like ordinary text.
        token_types: whether the model is given token types.
    """

    values: dict[str, Any]
    tokens: dict[str, Any]
    extra: list[Any]
    added: list[AddedToken]
    declared: frozenset[str]
    side: str | None
    split: bool
    token_types: bool


def read_options(folder: Path, known: TokenizerClass, file: Json) -> TokenizerOptions:
    """Read the three files of a checkpoint; any of them may be missing.

    Args:
        folder: the checkpoint.
        known: the class of its tokenizer.
        file: its tokenizer.json.

    Raises:
        CheckpointError: an option is not understood, or has a value that transformers refuses too.
    """
    return _Reader(folder).options(known, file)


def named_class(folder: Path, config: Json) -> tuple[object, object]:
    """``model_type`` and the tokenizer class that the checkpoint names, if any.

    Raises:
        CheckpointError: the tokenizer is code of the checkpoint's own.
    """
    given = _Reader(folder).object(CONFIG)
    code = given.get("auto_map")
    if code and (not isinstance(code, dict) or code.get("AutoTokenizer")):
        raise CheckpointError(
            f"{display_name(folder)}/{CONFIG} names code of its own for the tokenizer (auto_map); only "
            "the tokenizers of transformers can be served."
        )
    return config.get("model_type"), given.get("tokenizer_class") or config.get("tokenizer_class")


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = display_name(folder)

    def object(self, file: str) -> Json:
        return read_object(self.folder, file) if (self.folder / file).is_file() else {}

    def refuse(self, key: str, why: str) -> CheckpointError:
        return CheckpointError(f"{self.name}/{CONFIG}: {key!r} {why}.")

    def options(self, known: TokenizerClass, file: Json) -> TokenizerOptions:
        given = self.object(CONFIG)
        for key in ("tokenizer_class", "auto_map"):
            given.pop(key, None)
        if "additional_special_tokens" in given and not given.get("extra_special_tokens"):
            given["extra_special_tokens"] = given.pop("additional_special_tokens")
        stored = given.get("model_specific_special_tokens")
        specific = self._take_specific(given)
        if isinstance(stored, dict):  # transformers also writes each of them under its own name
            given = {
                key: value for key, value in given.items() if key.endswith("_token") or key not in stored
            }
        added = self._added(given, file)
        named = {name for name in given if name.endswith("_token") and given[name]} | specific.keys()
        contents = {str(token): token for _, token in added}
        given = {key: self._with_tokens(key, value) for key, value in given.items()}
        for name in NAMED:
            if given.get(name) is not None:
                given[name] = contents.get(str(given[name]), given[name])
        if known.model is None and file["padding"] and "pad_token" not in given:
            given["pad_token"] = file["padding"]["pad_token"]
        tokens = self._tokens(known, given, specific)
        extra = self._extra(known, given)
        self._refuse_unknown(given)
        declared = {*contents, *map(str, extra)} - set(known.extra)
        declared |= {str(token) for name, token in tokens.items() if name in named}
        side = given.get("truncation_side")
        if "truncation_side" in given and side not in _SIDES:
            raise self.refuse("truncation_side", 'has to be "left" or "right"')
        names = given.get("model_input_names")
        return TokenizerOptions(
            values={key: self._value(key, given, default) for key, default in known.options.items()},
            tokens=tokens,
            extra=extra,
            added=[token for _, token in sorted(dict(added).items())],
            declared=frozenset(declared),
            side=side,
            split=self._value("split_special_tokens", given, False),
            token_types="token_type_ids" in names if isinstance(names, list) else known.token_types,
        )

    def _take_specific(self, given: Json) -> dict[str, Any]:
        """Special tokens under names that transformers does not know, such as ``image_token``."""
        names = [key for key in given if key.endswith("_token") and key not in NAMED]
        found = {key: given.pop(key) for key in names if isinstance(given[key], str)}
        if isinstance(given.get("extra_special_tokens"), dict):
            found |= given.pop("extra_special_tokens")
        stored = given.pop("model_specific_special_tokens", None)
        found = found or (stored if isinstance(stored, dict) else {})
        return {key: self._with_tokens(key, token) for key, token in found.items()}

    def _added(self, given: Json, file: Json) -> list[tuple[int, AddedToken]]:
        """Tokens with the ids that the files give them; a later one replaces an earlier one."""
        if "added_tokens_decoder" in given:
            decoder = given.pop("added_tokens_decoder")
            if not isinstance(decoder, dict) or not all(key.isdecimal() for key in decoder):
                raise self.refuse("added_tokens_decoder", "has to give a token for each id")
            return [(int(key), self._token("added_tokens_decoder", token)) for key, token in decoder.items()]
        self._merge_special_tokens_map(given)
        special = {str(given[name]) for name in NAMED if given.get(name)}
        special |= {str(token) for token in self._joined(given.get("extra_special_tokens"), [])}
        added = []
        for token, index in self.object(ADDED_TOKENS).items():
            if type(index) is not int:
                raise CheckpointError(f"{self.name}/{ADDED_TOKENS} has to give an id for each token.")
            known = token in special
            added.append((index, AddedToken(token, normalized=not known, special=known)))
        for token in file["added_tokens"]:
            flags = {key: value for key, value in token.items() if key != "id"}
            added.append((token["id"], self._token("added_tokens", flags)))
        return added

    def _merge_special_tokens_map(self, given: Json) -> None:
        """special_tokens_map.json goes before tokenizer_config.json; read by older checkpoints only."""
        for key, value in self.object(SPECIAL_TOKENS_MAP).items():
            if key in ("add_bos_token", "add_eos_token"):  # in tokenizer_config.json, transformers drops it
                raise CheckpointError(
                    f"{self.name}/{SPECIAL_TOKENS_MAP}: {key!r} exchanges the post-processor; take it out."
                )
            if isinstance(value, dict) and key != "extra_special_tokens":
                given[key] = self._token(key, value | {"special": True})
            elif key == "extra_special_tokens" and isinstance(value, list):
                given[key] = self._joined(given.get(key), value)
            else:
                given[key] = value
        if isinstance(given.get("extra_special_tokens"), dict):
            raise self.refuse("extra_special_tokens", f"is an object in {SPECIAL_TOKENS_MAP}; make it a list")

    def _joined(self, given: Any, more: list[Any]) -> list[Any]:
        if given is not None and not isinstance(given, list):
            raise self.refuse("extra_special_tokens", "has to be a list of texts or tokens")
        joined = list(given or [])
        for part in more:
            special = isinstance(part, dict)
            token = self._token("extra_special_tokens", part | {"special": True}) if special else part
            if token not in joined:
                joined.append(token)
        return joined

    def _with_tokens(self, key: str, value: Any) -> Any:
        """The value with ``{"__type": "AddedToken", …}`` made tokens, as deep as they lie."""
        if isinstance(value, dict) and value.get("__type") == "AddedToken":
            return self._token(key, value)
        if isinstance(value, list):
            return [self._with_tokens(key, part) for part in value]
        return value

    def _token(self, key: str, flags: Any) -> AddedToken:
        # AddedToken prints "ignored" on stdout for arguments that it does not know.
        known = isinstance(flags, dict) and flags.keys() - {"__type"} <= _FLAGS
        if not known or not isinstance(flags.get("content"), str):
            raise self.refuse(key, "is not a valid token")
        try:
            return AddedToken(**{name: flag for name, flag in flags.items() if name != "__type"})
        except TypeError as error:
            raise self.refuse(key, "is not a valid token") from error

    def _tokens(self, known: TokenizerClass, given: Json, specific: dict[str, Any]) -> dict[str, Any]:
        found = dict.fromkeys(NAMED) | {name: known.tokens.get(name) for name in NAMED}
        found |= {name: given[name] for name in NAMED if name in given}
        more = {key: given[key] for key in given if key.endswith("_token") and key not in NAMED}
        found |= {key: token for key, token in more.items() if isinstance(token, str | AddedToken)} | specific
        for name, token in found.items():
            if name in known.needs and token is None:
                raise self.refuse(name, f"cannot be null for a {known.name}")
            if token is not None and not isinstance(token, str | AddedToken):
                raise self.refuse(name, "has to be a text or a token")
        return {name: known.wrap(name, token) for name, token in found.items()}

    def _extra(self, known: TokenizerClass, given: Json) -> list[Any]:
        extra = given.get("additional_special_tokens")
        if extra is None:
            extra = list(known.extra)
        if "extra_special_tokens" in given:
            extra = given["extra_special_tokens"]
        if extra is None:
            return []
        if not isinstance(extra, list) or not all(isinstance(token, str | AddedToken) for token in extra):
            raise self.refuse("additional_special_tokens", "has to be a list of texts or tokens")
        return extra

    def _value(self, key: str, given: Json, default: Any) -> Any:
        value = given.get(key, default)
        wanted: tuple[type, ...] = (int,) if key == "unk_id" else (bool,)
        if value is None and default is None:
            return None
        if type(value) not in wanted:
            raise self.refuse(key, "has to be a number" if key == "unk_id" else "has to be true or false")
        return value

    def _refuse_unknown(self, given: Json) -> None:
        for key, value in given.items():
            if key in REFUSED and not (key == "max_len" and "model_max_length" in given):
                raise self.refuse(key, REFUSED[key])
            token = key.endswith("_token") and (value is None or isinstance(value, str | AddedToken))
            if not (token or key in (*CLASS_SPECIFIC, *APPLIED, *_IGNORED, *REFUSED)):
                raise self.refuse(
                    key, "is not an option that this exporter knows; take it out if no tokenizer reads it"
                )
