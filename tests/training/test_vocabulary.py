"""A trimmed vocabulary makes the ids that the whole one makes, for words that it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from training.rerank import vocabulary
from training.rerank.vocabulary import SPECIAL, choose_tokens, trim_tokenizer

CHARACTERS = [*"abcdehilnorstuw", *(f"##{c}" for c in "abcdehilnorstuw"), "é", "犬"]
WORDS = ["the", "a", "world", "hello", "round", "##er", "##s", "tea", "turn"]


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Tokenizer]:
    names = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *WORDS]
    monkeypatch.setattr(vocabulary, "FIRST_WORD", names.index("the"))
    ids = {name: i for i, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    file = tmp_path / "tokenizer.json"
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return file, tokenizer


def trimmed(file: Path, kept: list[int]) -> Tokenizer:
    result: Tokenizer = Tokenizer.from_str(json.dumps(trim_tokenizer(file, kept)))
    return result


def test_kept_words_become_the_same_tokens_under_new_numbers(whole: tuple[Path, Tokenizer]) -> None:
    file, old = whole
    kept = choose_tokens(old, ["hello rounder worlds"] * 3, old.get_vocab_size() - 4)
    new = trimmed(file, kept)
    wanted = old.encode("Hello rounder worlds", "the world")
    found = new.encode("Hello rounder worlds", "the world")
    assert found.tokens == wanted.tokens
    assert [kept[i] for i in found.ids] == wanted.ids
    assert found.type_ids == wanted.type_ids
    assert len(found.ids) > 8  # no truncation, no padding


def test_ids_are_dense_and_keep_their_order(whole: tuple[Path, Tokenizer]) -> None:
    file, old = whole
    size = old.get_vocab_size() - 3
    kept = choose_tokens(old, ["hello"], size)
    ids = trimmed(file, kept).get_vocab()
    assert sorted(ids.values()) == list(range(size))
    assert kept == sorted(kept)
    assert all(old.get_vocab()[token] == kept[i] for token, i in ids.items())
    assert ids["[PAD]"] == 0  # what batches are padded with


def test_words_that_were_not_kept_fall_apart_and_foreign_scripts_are_unknown(
    whole: tuple[Path, Tokenizer],
) -> None:
    file, old = whole
    necessary = len(SPECIAL) + len(CHARACTERS) - 1
    new = trimmed(file, choose_tokens(old, ["hello"], necessary + 1))
    assert new.encode("hello", add_special_tokens=False).tokens == ["hello"]
    assert new.encode("turn", add_special_tokens=False).tokens == ["t", "##u", "##r", "##n"]
    assert new.encode("犬", add_special_tokens=False).tokens == ["[UNK]"]
    assert old.encode("犬", add_special_tokens=False).tokens == ["犬"]


def test_half_of_the_words_come_from_the_texts_and_half_from_english(whole: tuple[Path, Tokenizer]) -> None:
    _, old = whole
    necessary = len(SPECIAL) + len(CHARACTERS) - 1
    kept = choose_tokens(old, ["tea tea round"], necessary + 4)
    names = {i: name for name, i in old.get_vocab().items()}
    assert {names[i] for i in kept} - set(CHARACTERS) - set(SPECIAL) == {"tea", "round", "the", "world"}
