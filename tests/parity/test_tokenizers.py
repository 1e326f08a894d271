"""Tokenizers of transformers: random options of every class, and sentencepiece, which is converted."""

from __future__ import annotations

from pathlib import Path

import sentencepiece
import transformers

from export.checkpoint.tokenizer import load_tokenizer, tokenizer_file
from tests.support.option_sets import compare, short_texts
from tests.support.random_models import WRITTEN, save_model

SENTENCES = [
    "the cat sat on the mat",
    "a dog and a cat",
    "hello world again",
    "  spaces   between  ",
    "Ünïcödé 日本",
]
OPTION_SETS = 600


def test_random_options_of_every_class_give_the_tokens_of_transformers(tmp_path: Path) -> None:
    found = compare(tmp_path / "sets", OPTION_SETS, seed=17, texts=short_texts(80, seed=5))
    print(f"{found.pairs} pairs of option set and text, {found.changed} sets change tokenizer.json")
    assert found.different == []
    assert found.theirs == []
    assert found.pairs >= 0.85 * OPTION_SETS * len(found.texts)


def test_sentencepiece_of_xlm_roberta_is_converted(tmp_path: Path) -> None:
    save_model(WRITTEN["xlm-roberta"], tmp_path / "model", 2, tokenizer_class="XLMRobertaTokenizer")
    folder, work = tmp_path / "model", tmp_path / "work"
    (folder / "tokenizer.json").unlink()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = load_tokenizer(tokenizer_file(folder, work))
    wanted = transformers.AutoTokenizer.from_pretrained(folder)(SENTENCES)["input_ids"]
    assert [encoding.ids for encoding in tokenizer.encode_batch(SENTENCES)] == wanted
    assert {row[0] for row in wanted} == {0}
    assert {row[-1] for row in wanted} == {2}
