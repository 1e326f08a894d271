"""What the bench asks."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from loadtest.bench.sections import LENGTHS
from loadtest.bench.sentences import ExactTexts, read_sentences, token_lengths
from tests.support.texts import CHECKPOINT, sentences

TOKENIZER = CHECKPOINT / "tokenizer.json"


@pytest.fixture(scope="module")
def exact() -> ExactTexts:
    return ExactTexts(TOKENIZER, sentences())


@pytest.mark.parametrize("tokens", LENGTHS)
def test_a_text_has_exactly_the_wanted_number_of_tokens(exact: ExactTexts, tokens: int) -> None:
    texts = exact.make(tokens, 16)
    assert len(set(texts)) == 16
    # Not the function under test: a tokenizer that neither pads nor truncates.
    plain = Tokenizer.from_file(str(TOKENIZER))
    plain.no_padding()
    plain.no_truncation()
    assert {len(plain.encode(text).ids) for text in texts} == {tokens}


def test_a_length_that_cannot_be_made_is_refused(exact: ExactTexts) -> None:
    with pytest.raises(ValueError, match="exactly 1 tokens"):
        exact.make(1, 2)


def test_the_sentences_are_spread_over_the_file_and_keep_its_mix_of_lengths() -> None:
    chosen = read_sentences(CHECKPOINT / "heldout.tsv", 512)
    assert len(chosen) == 512
    assert set(chosen) <= set(sentences())
    assert chosen[-1] in sentences()[-4:]
    every = statistics.mean(token_lengths(TOKENIZER, sentences()))
    assert statistics.mean(token_lengths(TOKENIZER, chosen)) == pytest.approx(every, rel=0.03)


def test_a_file_with_fewer_sentences_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "few.tsv"
    file.write_text("text\tlabel\nGood.\t1\nBad.\t0\n", encoding="utf-8")
    assert read_sentences(file) == ["Good.", "Bad."]


def test_texts_of_about_a_length_are_spread_around_it_and_differ_from_set_to_set(exact: ExactTexts) -> None:
    one, other = exact.about(50, 41, sets=2)
    lengths = token_lengths(TOKENIZER, one)
    assert sorted(lengths) == list(range(30, 71))
    assert lengths != sorted(lengths)
    assert sorted(token_lengths(TOKENIZER, other)) == list(range(30, 71))
    assert not set(one) & set(other)


def test_texts_of_about_a_length_are_no_longer_than_the_model_reads(exact: ExactTexts) -> None:
    (texts,) = exact.about(400, 9, longest=512)
    assert sorted(token_lengths(TOKENIZER, texts, 1000)) == [240, 280, 320, 360, 400, 440, 480, 512, 512]
