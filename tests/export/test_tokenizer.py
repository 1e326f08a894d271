"""tokenizer.json: the checkpoint's own, or converted by transformers, which needs no torch for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from export.checkpoint import load_checkpoint
from export.checkpoint.tokenizer import load_tokenizer, tokenizer_file
from export.errors import CheckpointError
from export.plan import ExportPlan
from export.source import read_source
from tests.support.small_checkpoints import ROBERTA_WORDS, WORDS, write_checkpoint

TEXTS = ["a b c", "Abc, ABC!", "", "  ab  ba\n", "[SEP] <pad> x", "日本 é"]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    # transformers says that there is no torch, on whichever stderr the first test had.
    logging.getLogger("transformers").setLevel(logging.ERROR)


def old_format(folder: Path, family: str) -> Path:
    """A checkpoint whose tokenizer is stored as it was before tokenizer.json."""
    write_checkpoint(folder, family=family, tokenizer_class=None)
    (folder / "tokenizer.json").unlink()
    if family == "bert":
        (folder / "vocab.txt").write_text("\n".join([*WORDS[:-1], "[MASK]"]) + "\n")
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    else:
        words = [*ROBERTA_WORDS[:4], "<mask>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab", "Ġa"]
        (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
        (folder / "merges.txt").write_text("#version: 0.2\na b\nĠ a\n")
    return folder


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_older_vocabulary_is_converted_into_the_work_folder_alone(tmp_path: Path, family: str) -> None:
    from transformers import AutoTokenizer

    folder = old_format(tmp_path / "model", family)
    before = sorted(folder.iterdir())
    checkpoint = load_checkpoint(folder, tmp_path / "work")
    assert checkpoint.tokenizer_file.parent == tmp_path / "work"
    assert sorted(folder.iterdir()) == before
    tokenizer = load_tokenizer(checkpoint.tokenizer_file)
    wanted = AutoTokenizer.from_pretrained(str(folder))(TEXTS)["input_ids"]
    assert [encoding.ids for encoding in tokenizer.encode_batch(TEXTS)] == wanted
    assert len(set(map(tuple, wanted))) == len(TEXTS)


def test_the_folders_own_file_is_used_as_it_is(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    (folder / "vocab.txt").write_text("something else\n")
    assert load_checkpoint(folder, tmp_path / "work").tokenizer_file == folder / "tokenizer.json"
    assert not (tmp_path / "work").exists()


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = old_format(tmp_path / "model", "bert")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        CheckpointError, match=r"needs transformers: \.venv/bin/pip install -e '\.\[convert\]'"
    ):
        tokenizer_file(folder, tmp_path / "work")


def test_sentencepiece_is_asked_for_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "model", family="xlm-roberta")
    (folder / "tokenizer.json").rename(folder / "sentencepiece.bpe.model")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sentencepiece" else name)
    with pytest.raises(CheckpointError, match="needs transformers and sentencepiece"):
        tokenizer_file(folder, tmp_path / "work")


def test_a_vocabulary_that_cannot_be_read_gets_one_sentence(tmp_path: Path) -> None:
    folder = old_format(tmp_path / "model", "roberta")
    (folder / "vocab.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"^the tokenizer of model cannot be read \([^\n]*\)\.$"):
        tokenizer_file(folder, tmp_path / "work")


def test_a_file_that_makes_tokenizers_panic_gets_one_sentence(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"] = {"type": "BPE", "continuing_subword_prefix": "##", "vocab": {"a": 0, "b": 1, "ab": 2},
                        "merges": [["a", "b"]]}  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"^the tokenizer of model cannot be read \([^\n]*\)\.$"):
        tokenizer_file(folder, tmp_path / "work")


def test_without_a_work_folder_nothing_is_converted(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        load_checkpoint(old_format(tmp_path / "model", "bert"))


def id_beyond_the_table(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 9999)]
    )


def no_special_tokens(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(single="$A")


def no_special_tokens_of_control_characters(tokenizer: Tokenizer) -> None:
    no_special_tokens(tokenizer)
    tokenizer.normalizer = normalizers.Replace("\0", "")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)


def no_tokens(tokenizer: Tokenizer) -> None:
    no_special_tokens(tokenizer)
    tokenizer.model = models.BPE({"[PAD]": 0}, [])


def no_unknown_token(tokenizer: Tokenizer) -> None:
    tokenizer.model = models.WordLevel({"[PAD]": 0}, unk_token="[UNK]")


def no_token_for_the_text_that_warms_up_the_longest_bucket(tokenizer: Tokenizer) -> None:
    """Every other text is one known word."""
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex("^(great ){64}$"), "☃"), normalizers.Replace(Regex("^[^☃]+$"), "a")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
    tokenizer.model = models.WordLevel({"[PAD]": 0, "a": 4}, unk_token="[UNK]")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_token_for_the_text_that_warms_up_the_longest_bucket, "cannot encode every text"),
        (id_beyond_the_table, "gives token id 9999, the model knows 56"),
        (no_special_tokens, "makes no tokens of ' '; its tokenizer.json needs a post_processor"),
        (no_special_tokens_of_control_characters, r"makes no tokens of '\\x00'; its tokenizer.json needs"),
        (no_tokens, "makes no tokens of 'This pizza is great!'"),
        (no_unknown_token, r"the tokenizer of model cannot encode every text \(.*\)"),
    ],
)
def test_a_tokenizer_that_fails_on_ordinary_texts_is_refused(
    tmp_path: Path, change: Callable[[Tokenizer], None], message: str
) -> None:
    folder = write_checkpoint(tmp_path / "model", tokenizer_class="PreTrainedTokenizerFast")
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    change(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_source(ExportPlan(folder, tmp_path / "models", tmp_path / "artefacts"), tmp_path / "work")
    assert "\n" not in str(caught.value)
