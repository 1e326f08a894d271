"""Pairs get the tokens that tokenizers gives with truncation="only_second", whatever stands beside them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from export.triton_models import long_texts, pairs
from export.triton_models.pairs import NO_ROOM, PairEncoder, PairTokens, pair_layout
from tests.export.test_long_texts import NEVER_CUT, NEVER_CUT_ON_THE_LEFT, TOKENIZERS, hostile

LIMIT = 14
PAIRS = 60

Around = Callable[[int, int], Any]
LAYOUTS: dict[str, Around] = {
    "bert": lambda cls, sep: processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    ),
    "old bert": lambda cls, sep: processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls)),
    "roberta": lambda cls, sep: processors.RobertaProcessing(("[SEP]", sep), ("[CLS]", cls)),
    "doubled": lambda cls, sep: processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] [SEP] $B [SEP]",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    ),
    "nothing around": lambda cls, sep: processors.ByteLevel(),
}


def made(name: str, layout: str) -> Tokenizer:
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = LAYOUTS[layout](ids["[CLS]"], ids["[SEP]"])
    return tokenizer


def wanted(tokenizer: Tokenizer, query: str, text: str, side: str) -> PairTokens:
    """What tokenizers itself does, a pair at a time, because one bad pair fails a batch."""
    tokenizer.no_truncation()
    whole = len(tokenizer.encode(query, text).ids)
    tokenizer.enable_truncation(LIMIT, strategy="only_second", direction=side)
    try:
        found = tokenizer.encode(query, text)
    except Exception as error:
        if "too short to respect the provided max_length" not in str(error):
            raise
        return PairTokens([], [], NO_ROOM)
    finally:
        tokenizer.no_truncation()
    return PairTokens(found.ids, found.type_ids, whole)


def check(found: PairTokens, expected: PairTokens, *, exact: bool) -> bool:
    """Whether the context was read to its end; tokens and types are always those expected."""
    if expected.token_count == NO_ROOM:
        assert found.token_count == NO_ROOM
        return True
    assert (found.ids, found.types) == (expected.ids, expected.types)
    whole = found.token_count == expected.token_count
    assert whole or (not exact and LIMIT < found.token_count < expected.token_count)
    return whole


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_of_all_lengths_are_those_of_tokenizers(layout: str, side: str) -> None:
    tokenizer = made("bert", layout)
    words = ["a", "b.", "the fox", "x" * 30, "中文"]
    rng = random.Random(layout + side)
    asked = [
        (" ".join(rng.choices(words, k=rng.randint(1, 9))), " ".join(rng.choices(words, k=k)))
        for k in range(40)
    ]
    asked += [
        ("a " * count, text)
        for count in range(1, LIMIT + 2)
        for text in ("", " ", "a", "a b c d e f g h i j k")
    ]
    expected = [wanted(tokenizer, *pair, side) for pair in asked]
    assert 10 < sum(each.token_count == NO_ROOM for each in expected) < 0.7 * len(asked)
    assert any(each.token_count == len(each.ids) == LIMIT for each in expected)  # nothing cut, nothing left
    encoder = PairEncoder(tokenizer, LIMIT, side)
    for found, exact in ((encoder.encode_batch(asked), True), (encoder.encode_long(asked), False)):
        for one, other in zip(found, expected, strict=True):
            check(one, other, exact=exact)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_long_contexts_and_queries_are_read_as_far_as_needed(
    name: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "FIRST_READ", 2)
    monkeypatch.setattr(long_texts, "SEARCHED", 16)
    tokenizer = made(name, "bert")
    encoder = PairEncoder(tokenizer, LIMIT, side)
    rng = random.Random(f"{name}{side}")
    asked = [(rng.choice(["a b", "c", "the fox jumps", hostile(rng)]), hostile(rng)) for _ in range(PAIRS)]
    expected = [wanted(tokenizer, *pair, side) for pair in asked]
    short = encoder.encode_batch(asked)
    assert all(check(one, other, exact=True) for one, other in zip(short, expected, strict=True))
    long = encoder.encode_long(asked)
    unread = sum(not check(one, other, exact=False) for one, other in zip(long, expected, strict=True))
    assert (unread == 0) == (name in NEVER_CUT or (side == "left" and name in NEVER_CUT_ON_THE_LEFT))


class Watched:
    """A tokenizer that remembers the lengths of the texts that it was given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.read: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.read += map(len, texts)
        return self._tokenizer.encode_batch_fast(texts, **options)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_megabyte_of_context_or_query_is_not_tokenized_whole(side: str) -> None:
    watched = Watched(made("bert", "bert"))
    encoder = PairEncoder(watched, LIMIT, side)  # type: ignore[arg-type]
    megabyte = "a b c d " * 130_000
    found = encoder.encode_long([("a b", megabyte), (megabyte, "a"), (megabyte, megabyte)])
    assert [each.token_count == NO_ROOM for each in found] == [False, True, True]
    assert len(found[0].ids) == LIMIT
    assert sum(watched.read) < 5_000


def test_a_query_of_many_pairs_is_tokenized_once() -> None:
    watched = Watched(made("bert", "bert"))
    encoder = PairEncoder(watched, LIMIT, "right")  # type: ignore[arg-type]
    asked = [("the fox", "a"), ("the fox", "b"), ("a", "c"), ("the fox", "d")]
    encoder.encode_batch(asked)
    assert len(watched.read) == 2 + 4
    watched.read.clear()
    encoder.encode_long(asked)
    assert len(watched.read) == 2 + 4


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        ("[CLS] $B [SEP] $A [SEP]", "before the context"),
        ("[CLS] $A [SEP] $B $B [SEP]", "once each"),
        ("[CLS] $A $A [SEP] $B [SEP]", "once each"),
    ],
)
def test_other_arrangements_are_refused(pair: str, why: str) -> None:
    tokenizer = TOKENIZERS["bert"]()
    special = [(word, tokenizer.token_to_id(word)) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=special
    )
    with pytest.raises(ValueError, match=why):
        pair_layout(tokenizer)


def test_a_vocabulary_of_words_is_asked_for_its_own() -> None:
    tokenizer = Tokenizer(models.WordLevel({"w0": 0, "w1": 1}, unk_token="none"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert pair_layout(tokenizer).special == 0


def test_the_encoder_stands_alone_in_a_model_folder() -> None:
    """The python backend imports it from beside model.py; nothing of this project is there."""
    source = Path(pairs.__file__).read_text()
    assert "from export" not in source
    assert "import export" not in source
