"""What each tokenizer class of transformers 5 makes of a tokenizer.json.

A class reads the vocabulary and builds normalizer, pre-tokenizer and post-processor anew, from its
options: transformers' ``models/*/tokenization_*.py``. ``PreTrainedTokenizerFast`` (in transformers 5
``TokenizersBackend``) keeps the whole file. Here a part is the JSON of ``tokenizer.json`` and an option
or a special token goes where the class puts it. The tests compare every class with transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import RobertaProcessing, TemplateProcessing

Json = dict[str, Any]
Tokens = Mapping[str, Any]
"""``cls_token`` and so on: str, AddedToken or None."""
Values = Mapping[str, Any]
"""The class's own options."""

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _as_it_is(name: str, token: Any) -> Any:
    return token


def _file_parts(file: Json, values: Values, tokens: Tokens) -> Json:
    return {}


def _file_post_processor(tokenizer: Tokenizer, values: Values, tokens: Tokens) -> Any:
    return tokenizer.post_processor


@dataclass(frozen=True)
class TokenizerClass:
    """A class of transformers.

    Attributes:
        model: the type of tokenizer.json's model that it needs; None takes any, and the whole file.
        tokens: its special tokens unless the checkpoint names others.
        options: its own options with their defaults.
        parts: what it builds anew, given tokenizer.json, options and special tokens.
        post_processor: what it adds to a text; called when all tokens have their ids.
        pair_processor: the same for a pair of texts too; None if ``post_processor`` knows pairs.
        needs: special tokens without which it cannot be built.
        wrap: what it makes of a special token given as a string.
        extra: additional special tokens unless the checkpoint names some.
        token_types: whether it hands token types to the model.
    """

    name: str
    model: str | None = None
    tokens: Tokens = field(default_factory=dict)
    options: Values = field(default_factory=dict)
    parts: Callable[[Json, Values, Tokens], Json] = _file_parts
    post_processor: Callable[[Tokenizer, Values, Tokens], Any] = _file_post_processor
    needs: tuple[str, ...] = ()
    wrap: Callable[[str, Any], Any] = _as_it_is
    extra: tuple[str, ...] = ()
    token_types: bool = False
    pair_processor: Callable[[Tokenizer, Values, Tokens], Any] | None = None


# WordPiece


def _wordpiece_parts(file: Json, values: Values, tokens: Tokens) -> Json:
    return {
        "model": {
            "type": "WordPiece",
            "unk_token": str(tokens["unk_token"]),
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": file["model"]["vocab"],
        },
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": values["tokenize_chinese_chars"],
            "strip_accents": values["strip_accents"],
            "lowercase": values["do_lower_case"],
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
    }


def _mpnet_wrap(name: str, token: Any) -> Any:
    return AddedToken(token, lstrip=name == "mask_token", rstrip=False) if isinstance(token, str) else token


# Byte-level BPE


def _byte_level_parts(file: Json, values: Values, tokens: Tokens) -> Json:
    return {
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": file["model"]["vocab"],
            "merges": file["model"]["merges"],
        },
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": values["add_prefix_space"],
            "trim_offsets": True,
            "use_regex": True,
        },
    }


# Sentencepiece's Unigram


def _unigram(file: Json, unk_id: int) -> Json:
    return {"type": "Unigram", "unk_id": unk_id, "vocab": file["model"]["vocab"], "byte_fallback": False}


def _metaspace(add_prefix_space: bool, otherwise: str) -> Json:
    scheme = "always" if add_prefix_space else otherwise
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}


def _words_then_metaspace(values: Values) -> Json:
    steps = [{"type": "WhitespaceSplit"}, _metaspace(values["add_prefix_space"], "never")]
    return {"type": "Sequence", "pretokenizers": steps}


def _precompiled(file: Json) -> Json | None:
    """Sentencepiece's own normalization, which is kept of a normalizer; None if there is none."""
    normalizer = file["normalizer"] or {}
    steps = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    return next((step for step in steps if step.get("type") == "Precompiled"), None)


def _xlm_roberta_parts(file: Json, values: Values, tokens: Tokens) -> Json:
    return {
        "model": _unigram(file, 3),
        "normalizer": _precompiled(file),
        "pre_tokenizer": _words_then_metaspace(values),
    }


def _camembert_parts(file: Json, values: Values, tokens: Tokens) -> Json:
    unknown = str(tokens["unk_token"])
    words = (word for word, _ in file["model"]["vocab"])
    unk_id = next((index for index, word in enumerate(words) if word == unknown), 0)
    return _xlm_roberta_parts(file, values, tokens) | {"model": _unigram(file, unk_id)}


def _camembert_wrap(name: str, token: Any) -> Any:
    is_mask = name == "mask_token" and isinstance(token, str)
    return AddedToken(token, lstrip=True, special=True) if is_mask else token


def _albert_parts(file: Json, values: Values, tokens: Tokens) -> Json:
    steps: list[Json] = [
        {"type": "Replace", "pattern": {"String": quotes}, "content": '"'} for quotes in ("``", "''")
    ]
    if not values["keep_accents"]:
        steps += [{"type": "NFKD"}, {"type": "StripAccents"}]
    if values["do_lower_case"]:
        steps.append({"type": "Lowercase"})
    if precompiled := _precompiled(file):
        steps.append(precompiled)
    return {
        "model": _unigram(file, 1),
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": _words_then_metaspace(values),
    }


def _deberta_v2_parts(file: Json, values: Values, tokens: Tokens) -> Json:
    steps: list[Json] = [{"type": "Lowercase"}] if values["do_lower_case"] else []
    steps += [
        {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "},
        {"type": "NFC"},
        {"type": "Strip", "strip_left": False, "strip_right": True},
    ]
    splits: list[Json] = [{"type": "Punctuation", "behavior": "Isolated"}] if values["split_by_punct"] else []
    splits.append(_metaspace(values["add_prefix_space"], "first"))
    unknown, vocab = [str(tokens["unk_token"]), 0.0], file["model"]["vocab"]
    return {
        "model": _unigram(file, vocab.index(unknown) if unknown in vocab else values["unk_id"]),
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
    }


# What is added to a text


def _pair(tokenizer: Tokenizer, token: Any) -> tuple[str, int]:
    index = tokenizer.token_to_id(str(token))
    if index is None:
        raise ValueError(f"{str(token)!r} has no id")
    return str(token), index


# What stands around a pair; the number behind a colon is the token type, 0 without one.
_TYPED, _DOUBLED = "{0}:0 $A:0 {1}:0 $B:1 {1}:1", "{0} $A {1} {1} $B {1}"


def _around(first: str, last: str, pair: str | None = None) -> Callable[[Tokenizer, Values, Tokens], Any]:
    def post_processor(tokenizer: Tokenizer, values: Values, tokens: Tokens) -> Any:
        begin, end = _pair(tokenizer, tokens[first]), _pair(tokenizer, tokens[last])
        # As one string, which fails on a token with a space in it, as it does there.
        single, special = f"{begin[0]} $A {end[0]}", [begin, end]
        if pair is None:
            return TemplateProcessing(single=single, special_tokens=special)
        return TemplateProcessing(single=single, pair=pair.format(begin[0], end[0]), special_tokens=special)

    return post_processor


def _xlm_roberta_post_processor(tokenizer: Tokenizer, values: Values, tokens: Tokens) -> Any:
    begin, end = _pair(tokenizer, tokens["bos_token"]), _pair(tokenizer, tokens["eos_token"])
    return TemplateProcessing(single=[begin[0], "$A", end[0]], special_tokens=[begin, end])


def _xlm_roberta_pair_processor(tokenizer: Tokenizer, values: Values, tokens: Tokens) -> Any:
    begin, end = _pair(tokenizer, tokens["bos_token"]), _pair(tokenizer, tokens["eos_token"])
    pair = [begin[0], "$A", end[0], end[0], "$B", end[0]]
    return TemplateProcessing(single=[begin[0], "$A", end[0]], pair=pair, special_tokens=[begin, end])


def _as_roberta(tokenizer: Tokenizer, values: Values, tokens: Tokens) -> Any:
    sep, cls = _pair(tokenizer, tokens["sep_token"]), _pair(tokenizer, tokens["cls_token"])
    return RobertaProcessing(sep, cls, True, values.get("add_prefix_space", False))


def _albert_post_processor(tokenizer: Tokenizer, values: Values, tokens: Tokens) -> Any:
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    if not {str(tokens["cls_token"]), str(tokens["sep_token"])} <= vocabulary.keys():
        raise ValueError("cls_token and sep_token have to be in the vocabulary")
    return tokenizer.post_processor or _around("cls_token", "sep_token")(tokenizer, values, tokens)


def _albert_pair_processor(tokenizer: Tokenizer, values: Values, tokens: Tokens) -> Any:
    own = _albert_post_processor(tokenizer, values, tokens)
    return own if tokenizer.post_processor else _TYPED_PAIR(tokenizer, values, tokens)


_TYPED_PAIR = _around("cls_token", "sep_token", _TYPED)

_BERT_TOKENS = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
                "mask_token": "[MASK]"}  # fmt: skip
_ROBERTA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>",
                   "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}  # fmt: skip
_DEBERTA_TOKENS = _BERT_TOKENS | {"bos_token": "[CLS]", "eos_token": "[SEP]"}
_WORDPIECE = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None}

# Read for a warning alone: transformers 4 applies it to this class, transformers 5 does not.
PRETRAINED = TokenizerClass("PreTrainedTokenizerFast", options={"add_prefix_space": False})
_BERT = TokenizerClass(
    "BertTokenizer", "WordPiece", _BERT_TOKENS, _WORDPIECE, _wordpiece_parts,
    _around("cls_token", "sep_token"), ("unk_token", "cls_token", "sep_token"), token_types=True,
    pair_processor=_TYPED_PAIR,
)  # fmt: skip
_DISTILBERT = TokenizerClass(
    "DistilBertTokenizer", "WordPiece", _BERT_TOKENS, _WORDPIECE, _wordpiece_parts,
    _around("cls_token", "sep_token"), _BERT.needs, pair_processor=_TYPED_PAIR,
)  # fmt: skip
_MPNET = TokenizerClass(
    "MPNetTokenizer", "WordPiece", _ROBERTA_TOKENS | {"unk_token": "[UNK]"}, _WORDPIECE, _wordpiece_parts,
    _as_roberta, _BERT.needs, _mpnet_wrap,
)  # fmt: skip
_ROBERTA = TokenizerClass(
    "RobertaTokenizer", "BPE", _ROBERTA_TOKENS, {"add_prefix_space": False}, _byte_level_parts,
    _as_roberta, ("cls_token", "sep_token"),
)  # fmt: skip
_GPT2 = TokenizerClass(
    "GPT2Tokenizer", "BPE", dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>"),
    {"add_prefix_space": False}, _byte_level_parts,
)  # fmt: skip
_DEBERTA = TokenizerClass(
    "DebertaTokenizer", "BPE", _DEBERTA_TOKENS, {"add_prefix_space": False}, _byte_level_parts,
    _around("cls_token", "sep_token"), ("cls_token", "sep_token"), token_types=True,
    pair_processor=_around("cls_token", "sep_token", _DOUBLED),
)  # fmt: skip
_XLM_ROBERTA = TokenizerClass(
    "XLMRobertaTokenizer", "Unigram", _ROBERTA_TOKENS, {"add_prefix_space": True}, _xlm_roberta_parts,
    _xlm_roberta_post_processor, ("bos_token", "eos_token"), pair_processor=_xlm_roberta_pair_processor,
)  # fmt: skip
_CAMEMBERT = TokenizerClass(
    "CamembertTokenizer", "Unigram", _ROBERTA_TOKENS, {"add_prefix_space": True}, _camembert_parts,
    _around("bos_token", "eos_token"), ("bos_token", "eos_token", "unk_token"), _camembert_wrap,
    ("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
    pair_processor=_around("bos_token", "eos_token", _DOUBLED),
)  # fmt: skip
_ALBERT = TokenizerClass(
    "AlbertTokenizer", "Unigram", _DEBERTA_TOKENS | {"unk_token": "<unk>", "pad_token": "<pad>"},
    {"do_lower_case": True, "keep_accents": False, "add_prefix_space": True}, _albert_parts,
    _albert_post_processor, ("cls_token", "sep_token"), pair_processor=_albert_pair_processor,
)  # fmt: skip
_DEBERTA_V2 = TokenizerClass(
    "DebertaV2Tokenizer", "Unigram", _DEBERTA_TOKENS,
    {"do_lower_case": False, "split_by_punct": False, "add_prefix_space": True, "unk_id": 1},
    _deberta_v2_parts, _around("cls_token", "sep_token"), ("unk_token", "cls_token", "sep_token"),
    token_types=True, pair_processor=_TYPED_PAIR,
)  # fmt: skip

# By the name without "Fast"; several are one class in transformers 5.
CLASSES: dict[str, TokenizerClass] = {
    **{known.name: known for known in (
        _BERT, _DISTILBERT, _MPNET, _ROBERTA, _GPT2, _DEBERTA, _XLM_ROBERTA, _CAMEMBERT, _ALBERT, _DEBERTA_V2,
    )},
    **dict.fromkeys(("PreTrainedTokenizer", "TokenizersBackend"), PRETRAINED),
    **dict.fromkeys(
        ("ElectraTokenizer", "LayoutLMTokenizer", "LxmertTokenizer", "MobileBertTokenizer",
         "SqueezeBertTokenizer"),
        _BERT,
    ),
    **dict.fromkeys(("BartTokenizer", "LEDTokenizer", "LongformerTokenizer", "MvpTokenizer"), _ROBERTA),
}  # fmt: skip

# The class that transformers 5 takes for a model type by itself, of those above.
_OF_MODEL_TYPE = {
    "mpnet": _MPNET, "gpt2": _GPT2, "deberta": _DEBERTA, "deberta-v2": _DEBERTA_V2, "albert": _ALBERT,
    "yoso": _ALBERT, "camembert": _CAMEMBERT,
    **dict.fromkeys(
        ("bert", "convbert", "distilbert", "electra", "ernie", "layoutlm", "megatron-bert", "mobilebert",
         "nezha", "nomic_bert", "qdqbert", "squeezebert", "visual_bert"),
        _BERT,
    ),
    **dict.fromkeys(
        ("bart", "data2vec-text", "ibert", "lilt", "longformer", "mega", "mra", "roberta",
         "roberta-prelayernorm"),
        _ROBERTA,
    ),
    **dict.fromkeys(("xlm-roberta", "xmod"), _XLM_ROBERTA),
    **dict.fromkeys(
        ("bigbird_pegasus", "modernbert", "modernbert-decoder", "nystromformer", "xlm-roberta-xl"), PRETRAINED
    ),
}  # fmt: skip


def tokenizer_class(model_type: object, named: object) -> TokenizerClass | None:
    """The class that ``AutoTokenizer`` takes; None is one whose rules are not written here.

    Args:
        model_type: of config.json.
        named: ``tokenizer_class`` of tokenizer_config.json, else of config.json.
    """
    own = _OF_MODEL_TYPE.get(str(model_type))
    if own is None or not named:
        return own
    if own is PRETRAINED:  # for any class name
        return own
    return CLASSES.get(str(named).removesuffix("Fast"))
