"""Random tokenizers with random options beside them, for every class that the exporter knows."""

from __future__ import annotations

import base64
import json
import random
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from export.checkpoint.tokenizer import hands_token_types, load_tokenizer, tokenizer_file
from export.errors import CheckpointError
from export.triton_models.pairs import NO_ROOM, PairEncoder
from tests.support.texts import hostile_texts

Json = dict[str, Any]
LIMIT = 12
BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ROBERTA = {
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_WORDPIECE = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
# tokenizer_class, model_type, kind of model, special tokens, own options.
CLASSES: list[tuple[str, str, str, Json, tuple[str, ...]]] = [
    ("BertTokenizer", "bert", "wordpiece", BERT, _WORDPIECE),
    ("DistilBertTokenizer", "distilbert", "wordpiece", BERT, _WORDPIECE),
    ("ElectraTokenizer", "electra", "wordpiece", BERT, _WORDPIECE),
    ("MPNetTokenizer", "mpnet", "wordpiece", ROBERTA | {"unk_token": "[UNK]"}, _WORDPIECE),
    ("RobertaTokenizer", "roberta", "bpe", ROBERTA, ("add_prefix_space",)),
    ("GPT2Tokenizer", "gpt2", "bpe", ROBERTA, ("add_prefix_space",)),
    ("DebertaTokenizer", "deberta", "bpe", BERT, ("add_prefix_space",)),
    ("XLMRobertaTokenizer", "xlm-roberta", "unigram", ROBERTA, ("add_prefix_space",)),
    ("CamembertTokenizer", "camembert", "unigram", ROBERTA, ("add_prefix_space",)),
    ("AlbertTokenizer", "albert", "unigram", BERT | {"unk_token": "<unk>", "pad_token": "<pad>"},
     ("add_prefix_space", "do_lower_case", "keep_accents")),
    ("DebertaV2Tokenizer", "deberta-v2", "unigram", BERT,
     ("add_prefix_space", "do_lower_case", "split_by_punct", "unk_id")),
    ("PreTrainedTokenizerFast", "bert", "wordpiece", BERT, _WORDPIECE),
    ("PreTrainedTokenizerFast", "roberta", "bpe", ROBERTA, ("add_prefix_space",)),
    ("PreTrainedTokenizerFast", "modernbert", "bpe", BERT, ("add_prefix_space",)),
    ("PreTrainedTokenizerFast", "xlm-roberta", "unigram", ROBERTA, ("add_prefix_space",)),
]  # fmt: skip
# Sentencepiece's compiled form of six rules: ﬁ is fi, Ａ is A, ä is ae, … is ..., 披 is p, U+3000 is a space.
_CHARSMAP = zlib.decompress(base64.b64decode(
    "eNoV03Wsl1UcB+CzV2BsDP4AkRoxcIgwLpfuEFBBFCmRDuluUBC4CIIScgWk6yrdHdLd3d2hiDQGID6/sz37fN6zs/PPe74hWQgh"
    "5Rthx9QozEquhpCQoM9JHUIU62WikGDfShg+LwoLs4aQRl+UMgqD7KfSk2QKmc6htKTnTTLwFpnISBYy44qwcVkUsstsXE+Mwo2J"
    "Ucil5+S277flO+TmXfKQj7zk50F8FArIOAoST2EKUZQiFKcYJSlBaUpRljKUpxzvUYFKVOR9KvMhH1CVKlTjIz7hYz6lOjWpQW1q"
    "8Rl1+Jy61KceDWlAYxrRlCY0pxkt+IJWtKQNrWlHWzrQnk50pAud6UZXetCdXvSkD735ii/pR1/68zUDGcCg2M9lMN/wLUMYxlC+"
    "5ztGMJxRjGQ0P/AjiYxlDD8xjgmMZxITmcJkpjGVGUwniZn8ws/MZhZzmcN85rGQBSxmEUtZwnKWsZIVrGYVa1nDetaxgV/ZFHt/"
    "bGEz29jKDrazi53sYTf72MsB9nOIgxzhMMc4ygmOc4qTnOE05zjLBc5ziYtc4TLXuMqN2Cxwi5vcic0Cv3GXe/zOff6IzQB/8oiH"
    "POExz3jKXzznH/7mBf/yipe85j9yhLi4OFPQvFVo3c5L+h+Y/5RW"
))  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäöüÄéèñßÅ0123456789.,!?-[]<>/_'\"这个披日本😀"
_WORDS = ["the", "The", "bad", "Bad", "food", "word", "user", "cafe", "café", "SEP", "披萨"]
_TOKENS = ["[USER]", "<e1>", "[cls]", "Bad", "food", "[NEW]", "é", "</e1>", "披萨", "the end"]
_WITHOUT_EFFECT = {
    "clean_up_tokenization_spaces": True, "padding_side": "left", "never_split": None, "errors": "strict",
    "do_basic_tokenize": False, "add_bos_token": True, "add_eos_token": True, "trim_offsets": False,
    "model_input_names": ["input_ids", "attention_mask"], "name_or_path": "x/y", "max_length": 3, "stride": 2,
    "vocab_file": "vocab.txt", "legacy": True, "chat_template": "{{ x }}", "model_max_length": 7,
    "special_tokens_map_file": None, "sp_model_kwargs": {}, "remove_space": False, "pad_to_multiple_of": 8,
    "truncation_strategy": "only_first", "clean_text": False, "spaces_between_special_tokens": False,
}  # fmt: skip
MORE_TEXTS = [
    "Good Food BAD Wine", "excellent [USER] together phone [USER]", "<s> [SEP]</s> <mask>x[MASK]", "[SEP",
    "Bad[NEW]food <e1>Café</e1>", " the [cls][CLS] [UNK]<unk> ", "x\n\n y\tz  ``q'' 披萨这", "é[USER]é" * 9,
    "the  end the end", "ﬁt Ａ…ä\u3000x ’ ",
]  # fmt: skip


def _model(kind: str, special: list[str], rng: random.Random) -> models.Model:
    if kind == "bpe":
        merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("B", "a"), ("f", "o"), ("o", "d"), ("fo", "od")]
        words = [
            *special,
            *sorted(pre_tokenizers.ByteLevel.alphabet()),
            *("".join(merge) for merge in merges),
        ]
        return models.BPE({word: index for index, word in enumerate(dict.fromkeys(words))}, merges)
    if kind == "unigram":
        pieces = ["▁", *_LETTERS, *_WORDS, *(f"▁{word}" for word in _WORDS), *rng.sample(_TOKENS, 2)]
        scored = [(piece, -2.0 - len(pieces) / 50 + len(piece)) for piece in dict.fromkeys(pieces)]
        return models.Unigram([(token, 0.0) for token in special] + scored, unk_id=rng.choice([1, 3]))
    words = [*special, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_WORDS, *rng.sample(_TOKENS, 2)]
    unknown = "[UNK]" if "[UNK]" in special else "<unk>"
    return models.WordPiece(
        {word: index for index, word in enumerate(dict.fromkeys(words))}, unk_token=unknown,
        max_input_chars_per_word=rng.choice([4, 100, 100]),
    )  # fmt: skip


def _pre_tokenizer(kind: str, rng: random.Random) -> pre_tokenizers.PreTokenizer:
    if kind == "bpe":
        return pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.3)
    if kind == "unigram":
        space = pre_tokenizers.Metaspace(prepend_scheme=rng.choice(["always", "never", "first"]))
        return rng.choice([space, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])])
    return rng.choice([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Whitespace()])


def _sentencepiece_normalizers() -> list[normalizers.Normalizer]:
    compiled = normalizers.Precompiled(_CHARSMAP)
    return [
        compiled,
        normalizers.Sequence([normalizers.Strip(), compiled, normalizers.Replace(Regex(" {2,}"), " ")]),
    ]


def _tokenizer(kind: str, named: Json, rng: random.Random) -> Tokenizer:
    special = list(
        dict.fromkeys(
            named[name] for name in ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")
        )
    )
    tokenizer = Tokenizer(_model(kind, special, rng))
    bert = normalizers.BertNormalizer(
        lowercase=rng.random() < 0.5, strip_accents=rng.choice([None, True, False])
    )
    tokenizer.normalizer = rng.choice([bert, bert, normalizers.NFKC(), None]) if kind == "wordpiece" else (
        rng.choice([None, normalizers.Lowercase(), *_sentencepiece_normalizers()])
    )  # fmt: skip
    tokenizer.pre_tokenizer = _pre_tokenizer(kind, rng)
    cls, sep = ((named[name], special.index(named[name])) for name in ("cls_token", "sep_token"))
    if rng.random() < 0.8:
        tokenizer.post_processor = rng.choice([
            processors.TemplateProcessing(single=[cls[0], "$A", sep[0]], special_tokens=[cls, sep]),
            processors.BertProcessing(sep, cls), processors.RobertaProcessing(sep, cls),
        ])  # fmt: skip
    if rng.random() < 0.8:
        tokenizer.add_special_tokens(
            [AddedToken(token, lstrip=token == "<mask>", special=True) for token in special]
        )
    for token in rng.sample(_TOKENS, rng.choice([0, 0, 1, 2])):
        tokenizer.add_tokens([_added(token, rng)])
    if rng.random() < 0.2:
        tokenizer.enable_truncation(rng.choice([4, 30]), direction=rng.choice(["left", "right"]))
    if rng.random() < 0.2:
        tokenizer.enable_padding(length=20)
    return tokenizer


def _flags(rng: random.Random) -> Json:
    return {name: rng.random() < 0.3 for name in ("lstrip", "rstrip", "single_word", "normalized")}


def _added(content: str, rng: random.Random) -> AddedToken:
    return AddedToken(content, **_flags(rng), special=rng.random() < 0.5)


def _named(name: str, content: str, typed: bool, rng: random.Random) -> Any:
    """A special token as text or as object, sometimes renamed."""
    if rng.random() < 0.15 and name not in ("unk_token", "pad_token"):
        content = rng.choice(_TOKENS)
    if rng.random() < 0.5:
        return content
    return {"content": content, **_flags(rng), **({"__type": "AddedToken"} if typed else {})}


def _config(file: Json, named: Json, own: tuple[str, ...], rng: random.Random) -> Json:
    """tokenizer_config.json."""
    values: Json = {option: rng.random() < 0.5 for option in own} | {
        "truncation_side": rng.choice(["left", "right"])
    }
    if "strip_accents" in own:
        values["strip_accents"] = rng.choice([None, True, False])
    if "unk_id" in own:
        values["unk_id"] = rng.choice([0, 1, 3])
    config = {option: value for option, value in values.items() if rng.random() < 0.5}
    config |= {name: _named(name, token, True, rng) for name, token in named.items() if rng.random() < 0.3}
    rare: Json = {
        "image_token": rng.choice(_TOKENS),
        "split_special_tokens": rng.random() < 0.7,
        "additional_special_tokens": rng.sample(_TOKENS, rng.choice([0, 1, 2])),
        "extra_special_tokens": rng.choice([rng.sample(_TOKENS, 2), {"box": rng.choice(_TOKENS)}]),
    }
    config |= {key: value for key, value in rare.items() if rng.random() < 0.12}
    config |= {key: _WITHOUT_EFFECT[key] for key in rng.sample(sorted(_WITHOUT_EFFECT), 3)}
    if rng.random() < 0.5:
        config["added_tokens_decoder"] = _decoder(file, rng)
    return config


def _decoder(file: Json, rng: random.Random) -> Json:
    """Most of the tokens that tokenizer.json adds, and some that only tokenizer_config.json knows."""
    kept = [token for token in file["added_tokens"] if rng.random() < 0.9]
    decoder = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in kept}
    for token in rng.sample(_TOKENS, rng.choice([0, 1, 2])):
        flags = _flags(rng) | {"special": rng.random() < 0.5}
        decoder[str(len(file["model"]["vocab"]) + 8 + len(decoder))] = {"content": token, **flags}
    return decoder


def random_files(kind: str, named: Json, own: tuple[str, ...], rng: random.Random) -> dict[str, Json]:
    """tokenizer.json and the files beside it, as their content."""
    file: Json = json.loads(_tokenizer(kind, named, rng).to_str())
    files = {"tokenizer.json": file}
    if rng.random() < 0.95:
        files["tokenizer_config.json"] = _config(file, named, own, rng)
    if rng.random() < 0.4:
        kept = {name: token for name, token in named.items() if rng.random() < 0.6}
        files["special_tokens_map.json"] = {
            name: _named(name, token, False, rng) for name, token in kept.items()
        }
        if rng.random() < 0.3:
            files["special_tokens_map.json"]["additional_special_tokens"] = rng.sample(_TOKENS, 2)
    if rng.random() < 0.3:
        size = len(file["model"]["vocab"]) + 8
        files["added_tokens.json"] = {token: size + i for i, token in enumerate(rng.sample(_TOKENS, 2))}
    return files


@dataclass
class Comparison:
    """What was compared: option sets, texts of each, sets that both sides refuse, that only one refuses."""

    texts: list[str]
    pairs: int
    changed: int
    both: int
    ours: Counter[str]
    theirs: list[Json]
    different: list[Json]


def short_texts(count: int, seed: int) -> list[str]:
    return [*MORE_TEXTS, *(text[:120] for text in hostile_texts(count, seed))]


def compare(folder: Path, count: int, seed: int, texts: list[str], *, pairs: bool = False) -> Comparison:
    """``count`` random option sets, each as a checkpoint in ``folder``, against ``AutoTokenizer``.

    With ``pairs``, every text is the query of the one before it.
    """
    found = Comparison(texts, 0, 0, 0, Counter(), [], [])
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        name, model_type, kind, named, own = CLASSES[number % len(CLASSES)]
        files = random_files(kind, named, own, rng)
        config: Json = {"model_type": model_type}
        place = rng.choice([config, files.get("tokenizer_config.json", config), {}])
        if name == "PreTrainedTokenizerFast" and place == {}:
            place = config
        place["tokenizer_class"] = name.removesuffix("Fast") + rng.choice(["", "Fast"])
        checkpoint = folder / str(number)
        checkpoint.mkdir(parents=True)
        for file, content in (files | {"config.json": config}).items():
            (checkpoint / file).write_text(json.dumps(content))
        _compare_one(
            checkpoint, folder / f"{number}.work", {"class": name, "number": number} | files, found, pairs
        )
    return found


def _pairs_of(texts: list[str]) -> list[tuple[str, str]]:
    return list(zip(texts[1:] + texts[:1], texts, strict=True))


def _wanted_pairs(tokenizer: Any, texts: list[str]) -> list[Any]:
    """Ids and types of each pair; None where the query leaves no room, which fails a whole batch there."""
    found: list[Any] = []
    for query, text in _pairs_of(texts):
        try:
            pair = tokenizer(query, text, truncation="only_second", max_length=LIMIT)
        except Exception as error:
            if "too short to respect" not in str(error):
                raise
            found.append(None)
        else:
            types = pair.get("token_type_ids", [0] * len(pair["input_ids"]))
            found.append((pair["input_ids"], types))
    return found


def _own_pairs(checkpoint: Path, work: Path, texts: list[str]) -> tuple[Path, list[Any]]:
    file = tokenizer_file(checkpoint, work, max_tokens=LIMIT, pairs=True)
    tokenizer = load_tokenizer(file, LIMIT)
    side = (tokenizer.truncation or {})["direction"]
    tokenizer.no_truncation()
    typed = hands_token_types(checkpoint)
    rows = PairEncoder(tokenizer, LIMIT, side).encode_batch(_pairs_of(texts))
    return file, [
        None if row.token_count == NO_ROOM else (row.ids, row.types if typed else [0] * len(row.ids))
        for row in rows
    ]


def _compare_one(checkpoint: Path, work: Path, case: Json, found: Comparison, pairs: bool) -> None:
    from transformers import AutoTokenizer

    wanted: Any
    try:
        theirs = AutoTokenizer.from_pretrained(checkpoint)
        if pairs:
            wanted = _wanted_pairs(theirs, found.texts)
        else:
            wanted = theirs(found.texts, truncation=True, max_length=LIMIT)["input_ids"]
    except Exception as error:
        wanted, why = None, error
    got: Any
    try:
        if pairs:
            file, got = _own_pairs(checkpoint, work, found.texts)
        else:
            file = tokenizer_file(checkpoint, work, max_tokens=LIMIT)
            got = [encoding.ids for encoding in load_tokenizer(file, LIMIT).encode_batch_fast(found.texts)]
    except CheckpointError as error:
        if wanted is None:
            found.both += 1
        else:
            found.ours[str(error).split(":", 1)[1][:60]] += 1
        return
    except Exception:  # a text that the tokenizer cannot encode
        got = None
    if wanted is None or got is None:
        if wanted is not got:
            found.theirs.append(case | {"why": str(why) if wanted is None else "ours fails"})
        found.both += wanted is got
        return
    found.changed += file.parent == work
    found.pairs += len(found.texts)
    if wrong := [text for text, a, b in zip(found.texts, wanted, got, strict=True) if a != b]:
        index = found.texts.index(wrong[0])
        found.different.append(case | {"text": wrong[0], "wanted": wanted[index], "got": got[index]})
