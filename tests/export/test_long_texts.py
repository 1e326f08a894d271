"""Long texts are tokenized only as far as the model reads them, and their tokens stay the same, always."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from export.triton_models import long_texts
from export.triton_models.long_texts import LongTextEncoder

LIMIT = 12
TEXTS = int(os.environ.get("LONG_TEXTS", "40"))
"""Texts for each tokenizer and side."""
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and it was a lovely day.",
    "So it goes... 1984 was not (really) a novel: it's a manual! don't you'll",
    "中文文本没有空格,这是一个例子。今天天气很好",
    "naïve café Straße façade привет мир ελληνικά aaaa bbbb ........ ----",
    "a.b.c a. .b x''y ``z'' <tag> [SEP]",
]
PIECES: list[str] = [
    *"....", "........", " ", "  ", "     ", "\t", "\n", "\r\n",
    "\u00a0", "\u3000", "\0", "\u200b", "\u200d", "\ufffd",
    "a", "B", "aaaa", "the", "The quick", "fox jumps over", "don't",
    "'s", "'S", "it's a", "x" * 99, "y" * 101, "Z" * 350,
    "é", "e\u0301", "\u0301", "\u0338", "=\u0338", "<\u0338", "ß",
    "İ", "Σ", "ﬁ", "½", "ﷺ", "Å", "я" * 120, "ы", "ω",
    "中", "文中", "文本没有空格", "今" * 40, "。", "，", "か\u3099", "\u1112\u1161\u11ab", "한국",
    "\u1100" * 120,
    "👩\u200d👩\u200d👧", "🙂", "1", "1984", "a1b2", "_", "__", "-", "(",
    ")", "``", "''", "[SEP]", "[sep]", "[SE", "P]",
    "<mask>", " <mask>", "<mask> ", "foo", "foobar", "FOO", "two words",
    "two  words", "new", "newer", "_x", "x_", "▁", "Ġ",
]  # fmt: skip


def hostile(rng: random.Random) -> str:
    """A long text: a run of few pieces, or many of them, or one with something else in its midst."""
    few = rng.sample(PIECES, rng.randint(1, 4))
    kind = rng.randrange(4)
    if kind == 0:
        text = rng.choice(few) * rng.randint(1, 300)
    elif kind == 1:
        text = "".join(rng.choices(few, k=rng.randint(1, 200)))
    elif kind == 2:
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 200)))
    else:
        filling = (rng.choice(few) * rng.randint(1, 200))[:500]
        text = filling + "".join(rng.choices(PIECES, k=rng.randint(1, 30))) + filling
    return text[:1200]


def finished(tokenizer: Tokenizer, added: list[AddedToken | str]) -> Tokenizer:
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.add_tokens(added)
    start, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", start), ("[SEP]", end)]
    )
    return tokenizer


@cache
def word_piece() -> dict[str, int]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        CORPUS * 3,
        trainers.WordPieceTrainer(
            vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
        ),
    )
    return dict(tokenizer.get_vocab())


def bert(*added: AddedToken | str, normalizer: Any = None, longest: int = 100, pre: Any = None) -> Tokenizer:
    model = models.WordPiece(word_piece(), unk_token="[UNK]", max_input_chars_per_word=longest)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer or normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre or pre_tokenizers.BertPreTokenizer()
    return finished(tokenizer, list(added))


def byte_level(*added: AddedToken | str, prefix: bool = False, normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return finished(tokenizer, list(added))


def unigram(*added: AddedToken | str, normalizer: Any = None, pre: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer or normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre or pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return finished(tokenizer, list(added))


MASK = AddedToken("<mask>", lstrip=True, special=True)
SEQUENCE, FORMS = normalizers.Sequence, (normalizers.NFC(), normalizers.NFKC())
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "bert": bert,
    "bert cased": lambda: bert(normalizer=normalizers.BertNormalizer(lowercase=False, strip_accents=False)),
    "bert without chinese": lambda: bert(normalizer=normalizers.BertNormalizer(handle_chinese_chars=False)),
    "bert keeps controls": lambda: bert(normalizer=normalizers.BertNormalizer(clean_text=False)),
    "bert composed": lambda: bert(normalizer=SEQUENCE([FORMS[0], normalizers.BertNormalizer()])),
    "bert compatible": lambda: bert(normalizer=SEQUENCE([FORMS[1], normalizers.Lowercase()])),
    "bert with short words": lambda: bert(longest=3),
    "bert with a token to the left": lambda: bert(AddedToken("<mask>", lstrip=True), AddedToken("foo")),
    "bert with a token to the right": lambda: bert(AddedToken("<mask>", rstrip=True, normalized=False)),
    "bert with whole words": lambda: bert(*(AddedToken(word, single_word=True) for word in ("new", "中"))),
    "bert with spaces in tokens": lambda: bert(AddedToken("two words", normalized=False)),
    "bert with spaces in normalized tokens": lambda: bert(AddedToken("Two Words", normalized=True)),
    "bert with punctuation in tokens": lambda: bert(AddedToken("..", normalized=False), AddedToken("a.B")),
    "bert with accents in tokens": lambda: bert(AddedToken(".é"), AddedToken("b="), AddedToken("Ａ.")),
    "bert composed with accents in tokens": lambda: bert(
        AddedToken(".é"), AddedToken("a≠"), normalizer=SEQUENCE([FORMS[1], normalizers.Lowercase()])
    ),
    "bert with Chinese in tokens": lambda: bert(AddedToken("文本没有", normalized=False)),
    "bert with whitespace words": lambda: bert(pre=pre_tokenizers.Whitespace()),
    "bert at spaces": lambda: bert(pre=pre_tokenizers.WhitespaceSplit()),
    "roberta": lambda: byte_level(MASK),
    "roberta with prefix": lambda: byte_level(MASK, prefix=True),
    "modern": lambda: byte_level(MASK, "foo", normalizer=normalizers.NFC()),
    "byte level with a token to the right": lambda: byte_level(AddedToken("foo", rstrip=True)),
    "byte level stripped": lambda: byte_level(normalizer=normalizers.Strip()),
    "xlm-r": lambda: unigram(MASK),
    "xlm-r split": lambda: unigram(
        MASK, pre=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    ),
    "metaspace first": lambda: unigram(pre=pre_tokenizers.Metaspace(prepend_scheme="first")),
    "metaspace never": lambda: unigram(pre=pre_tokenizers.Metaspace(prepend_scheme="never")),
    "albert": lambda: unigram(
        normalizer=SEQUENCE(
            [
                normalizers.Replace("``", '"'),
                normalizers.Replace("''", '"'),
                normalizers.NFKD(),
                normalizers.StripAccents(),
                normalizers.Lowercase(),
                normalizers.Replace(Regex(" {2,}"), " "),
            ]
        )
    ),
    "deletes": lambda: unigram(normalizer=normalizers.Replace("x", "")),
    "unknown normalizer": lambda: unigram(normalizer=normalizers.Replace(Regex("x y"), "z")),
    "unsplit metaspace": lambda: unigram(pre=pre_tokenizers.Metaspace(split=False)),
    "by scripts": lambda: unigram(pre=pre_tokenizers.UnicodeScripts()),
}  # fmt: skip
NEVER_CUT = {
    "bert with spaces in normalized tokens", "deletes", "unknown normalizer", "unsplit metaspace",
    "by scripts",
}  # fmt: skip


NEVER_CUT_ON_THE_LEFT = {"byte level with a token to the right", "byte level stripped"}


def tokens(encoding: Any, side: str) -> list[int]:
    """All tokens that were read, those that were cut off among them, without the special ones."""
    pieces = [piece.ids[1:-1] for piece in (encoding, *encoding.overflowing)]
    return [token for piece in (pieces if side == "right" else reversed(pieces)) for token in piece]


def check(encoder: LongTextEncoder, tokenizer: Tokenizer, text: str) -> bool:
    """Whether the text was cut; what was read must be as in the whole text, up to the last token."""
    side = (tokenizer.truncation or {})["direction"]
    whole, found = tokenizer.encode_batch_fast([text])[0], encoder.encode(text)
    assert found.ids == whole.ids, (text[:200], len(text))
    wanted, read = tokens(whole, side), tokens(found, side)
    assert read == (wanted[: len(read)] if side == "right" else wanted[len(wanted) - len(read) :]), text[:200]
    assert len(read) == len(wanted) or len(read) > LIMIT - 2
    return len(read) < len(wanted)


def surrounded(side: str) -> Iterator[str]:
    """Each piece, twice, at every distance from where the text is cut."""
    for piece in PIECES:
        for lead in range(16, 24):
            before, after = ("ab. c中,d " * 4)[:lead], " e.f 中ge" * 12
            text = before + piece[:12] * 2
            yield text + after if side == "right" else after + text[::-1]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_tokens_that_the_model_reads_are_those_of_the_whole_text(
    name: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_texts, "FIRST_READ", 2)
    monkeypatch.setattr(long_texts, "SEARCHED", 16)
    tokenizer = TOKENIZERS[name]()
    tokenizer.enable_truncation(LIMIT, direction=side)
    encoder = LongTextEncoder(tokenizer)
    rng = random.Random(f"{name}{side}")
    texts = [*surrounded(side), *(hostile(rng) for _ in range(TEXTS))]
    cut = sum(check(encoder, tokenizer, text) for text in texts)
    assert (cut == 0) == (name in NEVER_CUT or (side == "left" and name in NEVER_CUT_ON_THE_LEFT))
