"""A sentencepiece model becomes a tokenizer.json that gives the same ids; needs sentencepiece."""

from __future__ import annotations

from pathlib import Path

import sentencepiece
import transformers

from export.checkpoint.tokenizer import load_tokenizer, tokenizer_file
from tests.parity.models import WRITTEN, save_model

SENTENCES = [
    "the cat sat on the mat",
    "a dog and a cat",
    "hello world again",
    "  spaces   between  ",
    "Ünïcödé 日本",
]


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
