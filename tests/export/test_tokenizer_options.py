"""What the files beside tokenizer.json say reaches the tokens, exactly as transformers applies it."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from export.checkpoint import load_checkpoint
from export.checkpoint.files import sha256
from export.checkpoint.model import Checkpoint
from export.checkpoint.tokenizer import load_tokenizer, tokenizer_file
from export.checkpoint.tokenizer_classes import NAMED
from export.checkpoint.tokenizer_options import APPLIED, CLASS_SPECIFIC, REFUSED, WITHOUT_EFFECT
from export.errors import CheckpointError
from export.plan import ExportPlan
from export.source import read_source
from tests.support.option_sets import CLASSES, LIMIT, compare, random_files, short_texts
from tests.support.small_checkpoints import POSITIONS, WORDS, write_checkpoint
from tests.support.texts import CHECKPOINT

OPTION_SETS = 240
PAIR_SETS = 75
Ids = list[list[int]]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)


def checkpoint(
    folder: Path, files: dict[str, Any] | None = None, family: str = "bert", **config: Any
) -> Path:
    """A small classifier with upper-case words as well, and the files given as JSON beside tokenizer.json."""
    write_checkpoint(folder, family=family, **config)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["padding"] = tokenizer["truncation"] = None
    vocabulary = tokenizer["model"]["vocab"]
    # The model has a row for each of WORDS; some letters make room.
    for letter, upper in zip("qvwxyz", "AB[]!é", strict=True):
        vocabulary[upper] = vocabulary.pop(letter)
    for name, content in ({"tokenizer.json": tokenizer} | (files or {})).items():
        (folder / name).write_text(json.dumps(content))
    return folder


def rewrite(folder: Path, **parts: Any) -> Path:
    content = json.loads((folder / "tokenizer.json").read_text()) | parts
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def of_transformers(folder: Path, texts: list[str], max_length: int = POSITIONS) -> Ids:
    from transformers import AutoTokenizer

    ids: Ids = AutoTokenizer.from_pretrained(folder)(texts, truncation=True, max_length=max_length)[
        "input_ids"
    ]
    return ids


def of_its_own_file(folder: Path, texts: list[str]) -> Ids:
    return [encoding.ids for encoding in load_tokenizer(folder / "tokenizer.json").encode_batch(texts)]


def exported(folder: Path, texts: list[str]) -> tuple[Checkpoint, Ids]:
    """The checkpoint as an export reads it, and the ids of what it would publish."""
    read = load_checkpoint(folder, folder.parent / "work")
    tokenizer = load_tokenizer(read.tokenizer_file, read.max_tokens)
    return read, [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def test_random_options_of_every_class_give_the_tokens_of_transformers(tmp_path: Path) -> None:
    found = compare(tmp_path / "sets", OPTION_SETS, seed=3, texts=short_texts(50, seed=2))
    print(f"{found.pairs} pairs of option set and text, {found.changed} sets change tokenizer.json")
    assert found.different == []
    assert found.theirs == []
    assert all("split_special_tokens" in message for message in found.ours), found.ours
    assert found.pairs >= 0.85 * OPTION_SETS * len(found.texts)
    assert found.changed >= 0.7 * OPTION_SETS


def test_random_options_of_every_class_give_the_pairs_of_transformers(tmp_path: Path) -> None:
    """Ids and token types, with truncation="only_second"; None where the query leaves no room."""
    found = compare(tmp_path / "sets", PAIR_SETS, seed=5, texts=short_texts(30, seed=6), pairs=True)
    assert found.different == []
    assert found.theirs == []
    assert found.pairs >= 0.85 * PAIR_SETS * len(found.texts)
    assert found.changed >= 0.7 * PAIR_SETS


def test_lower_case_is_taken_from_tokenizer_config(tmp_path: Path) -> None:
    texts = ["BAD Bead AB ab", "A"]
    folder = checkpoint(tmp_path / "m", {"tokenizer_config.json": {"do_lower_case": False}})
    _, ids = exported(folder, texts)
    assert ids == of_transformers(folder, texts) != of_its_own_file(folder, texts)
    assert ids[1] == [2, WORDS.index("q"), 3]


def test_a_token_that_only_added_tokens_decoder_knows_is_one_token(tmp_path: Path) -> None:
    texts = ["bead [USER] head", "[user]"]
    user = {
        "content": "[USER]",
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "single_word": False,
        "special": True,
    }
    named = {str(i): user | {"content": word} for i, word in enumerate(WORDS[:4])}
    folder = checkpoint(
        tmp_path / "m", {"tokenizer_config.json": {"added_tokens_decoder": named | {"55": user}}}
    )
    # The last word makes room for it.
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    del tokenizer["model"]["vocab"][WORDS[-1]]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    _, ids = exported(folder, texts)
    assert ids == of_transformers(folder, texts) != of_its_own_file(folder, texts)
    assert ids[0].count(len(WORDS) - 1) == 1


def test_added_tokens_get_their_ids_in_the_order_of_the_ids_in_the_file(tmp_path: Path) -> None:
    texts = ["bead <x> head <y>"]
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word", "special"), False)
    folder = checkpoint(tmp_path / "m")
    added = [flags | {"id": 57, "content": "<y>"}, flags | {"id": 56, "content": "<x>"}]
    rewrite(folder, added_tokens=added)
    tokenizer = load_tokenizer(tokenizer_file(folder, tmp_path / "work"))
    assert [tokenizer.encode(text).ids for text in texts] == of_transformers(folder, texts)


def test_older_files_are_read_where_there_is_no_added_tokens_decoder(tmp_path: Path) -> None:
    texts = ["bead <x> head", "[SEP]<x>"]
    files = {
        "added_tokens.json": {"<x>": 55},
        "special_tokens_map.json": {"additional_special_tokens": ["<x>"]},
    }
    folder = checkpoint(tmp_path / "m", files)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    del tokenizer["model"]["vocab"][WORDS[-1]]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    _, ids = exported(folder, texts)
    assert ids == of_transformers(folder, texts) != of_its_own_file(folder, texts)


def test_a_renamed_special_token_frames_the_text(tmp_path: Path) -> None:
    folder = checkpoint(
        tmp_path / "m", {"tokenizer_config.json": {"sep_token": "!", "tokenizer_class": "BertTokenizerFast"}}
    )
    _, ids = exported(folder, ["ab"])
    assert ids == of_transformers(folder, ["ab"])
    assert ids[0][-1] == WORDS.index("y")


@pytest.mark.parametrize("where", ["tokenizer_config.json", "tokenizer.json"])
def test_long_texts_are_cut_at_the_side_that_the_checkpoint_names(tmp_path: Path, where: str) -> None:
    texts = ["a " * 100 + "b", "ab " * 70]
    if where == "tokenizer_config.json":
        folder = checkpoint(tmp_path / "m", {where: {"truncation_side": "left"}})
    else:
        cut = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
        folder = rewrite(checkpoint(tmp_path / "m"), truncation=cut)
    read, ids = exported(folder, texts)
    assert ids == of_transformers(folder, texts)
    assert ids[0][-2] == WORDS.index("b")
    assert json.loads(read.tokenizer_file.read_text())["truncation"]["direction"] == "Left"
    assert where == "tokenizer.json" or json.loads(read.tokenizer_file.read_text())["truncation"] == {
        "direction": "Left", "max_length": POSITIONS, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip


def test_the_side_in_tokenizer_config_goes_before_that_in_tokenizer_json(tmp_path: Path) -> None:
    cut = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    folder = checkpoint(tmp_path / "m", {"tokenizer_config.json": {"truncation_side": "right"}})
    read, ids = exported(rewrite(folder, truncation=cut), ["a " * 100 + "b"])
    assert ids == of_transformers(folder, ["a " * 100 + "b"])
    assert json.loads(read.tokenizer_file.read_text())["truncation"] is None


def test_verification_and_evaluation_cut_at_the_same_side(tmp_path: Path) -> None:
    text = "a " * 100 + "b"
    (tmp_path / "texts.csv").write_text("text,label\n" + f"{text},LABEL_0\n" * 4)
    folder = checkpoint(tmp_path / "m", {"tokenizer_config.json": {"truncation_side": "left"}})
    plan = ExportPlan(folder, tmp_path / "models", tmp_path / "artefacts", examples=tmp_path / "texts.csv")
    source = read_source(plan, tmp_path / "work")
    assert isinstance(source.tokenizer, Tokenizer)
    assert source.example_rows[0] == source.tokenizer.encode(text).ids == of_transformers(folder, [text])[0]


def test_special_tokens_in_a_text_are_ordinary_text_if_they_are_to_be_split(tmp_path: Path) -> None:
    texts = ["ab [SEP] ab", "[CLS]"]
    folder = checkpoint(tmp_path / "m", {"tokenizer_config.json": {"split_special_tokens": True}})
    _, ids = exported(folder, texts)
    assert ids == of_transformers(folder, texts) != of_its_own_file(folder, texts)
    assert ids[0].count(3) == 1


def test_a_class_keeps_its_mask_token_to_itself_if_the_model_has_no_row_for_it(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    read, ids = exported(folder, ["ab [MASK] a"])
    assert max(ids[0]) < len(WORDS)
    assert read.tokenizer_file == folder / "tokenizer.json"
    with_room = tokenizer_file(folder, tmp_path / "work", vocabulary=len(WORDS) + 1)
    assert [load_tokenizer(with_room).encode("ab [MASK] a").ids] == of_transformers(folder, ["ab [MASK] a"])


def test_a_token_that_a_file_names_needs_a_row_in_the_model(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", {"tokenizer_config.json": {"additional_special_tokens": ["<x>"]}})
    with pytest.raises(CheckpointError, match="gives token ids up to 56, the model knows 56"):
        exported(folder, ["a"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"normalise": True}, "'normalise' is not an option that this exporter knows"),
        ({"do_lower_case": "false"}, "'do_lower_case' has to be true or false"),
        ({"do_lower_case": None}, "'do_lower_case' has to be true or false"),
        ({"strip_accents": 1}, "'strip_accents' has to be true or false"),
        ({"split_special_tokens": "yes"}, "'split_special_tokens' has to be true or false"),
        ({"truncation_side": "middle"}, '\'truncation_side\' has to be "left" or "right"'),
        ({"truncation_side": None}, "'truncation_side' has to be"),
        ({"cls_token": None}, "'cls_token' cannot be null for a BertTokenizer"),
        ({"mask_token": {"content": "[MASK]"}}, "'mask_token' has to be a text or a token"),
        (
            {"mask_token": {"__type": "AddedToken", "contents": "x"}},
            "'mask_token' is not a valid token",
        ),
        ({"additional_special_tokens": [{"content": "x"}]}, "has to be a list of texts or tokens"),
        ({"added_tokens_decoder": None}, "'added_tokens_decoder' has to give a token for each id"),
        ({"added_tokens_decoder": {"4": "x"}}, "'added_tokens_decoder' is not a valid token"),
        ({"auto_map": {"AutoTokenizer": ["x.T", None]}}, "names code of its own for the tokenizer"),
        ({"fast_tokenizer_files": ["tokenizer.4.0.json"]}, "names another file than tokenizer.json"),
        ({"init_inputs": ["x"]}, "passes arguments by position"),
        ({"max_len": 7}, "is the old name of model_max_length"),
        ({"unk_token": "missing", "cls_token": "a b"}, "do not make a BertTokenizer"),
        ({"tokenizer_class": "RobertaTokenizer"}, "needs a BPE model, but tokenizer.json holds WordPiece"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_sentence(
    tmp_path: Path, option: dict[str, Any], message: str
) -> None:
    folder = checkpoint(tmp_path / "m", {"tokenizer_config.json": option})
    with pytest.raises(CheckpointError) as caught:
        exported(folder, ["a"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("option", ["add_bos_token", "add_eos_token"])
def test_what_only_special_tokens_map_can_add_to_every_text_is_refused(tmp_path: Path, option: str) -> None:
    files = {"special_tokens_map.json": {option: False}}
    folder = checkpoint(tmp_path / "m", files)
    with pytest.raises(CheckpointError, match=f"m/special_tokens_map.json: '{option}' exchanges"):
        tokenizer_file(folder, tmp_path / "work")


def test_splitting_special_tokens_is_refused_beside_other_added_tokens(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", {"tokenizer_config.json": {"split_special_tokens": True}})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("ab")])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="split_special_tokens cannot be expressed"):
        tokenizer_file(folder, tmp_path / "work")


def test_merges_that_are_dropped_at_random_are_refused(tmp_path: Path) -> None:
    folder = checkpoint(
        tmp_path / "m", {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}}
    )
    rewrite(folder, model={"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []})
    with pytest.raises(CheckpointError, match="drops merges at random"):
        exported(folder, ["a"])


def test_merges_dropped_at_random_are_refused_where_transformers_reads_the_options_too(
    tmp_path: Path,
) -> None:
    folder = checkpoint(tmp_path / "m")
    (folder / "config.json").write_text('{"model_type": "eurobert"}')
    rewrite(
        folder, model={"type": "BPE", "dropout": 0.5, "vocab": {"a": 0}, "merges": []}, post_processor=None
    )
    with pytest.raises(CheckpointError, match=r"drops merges at random \(dropout is 0\.5\)"):
        tokenizer_file(folder, tmp_path / "work")


def test_token_types_that_the_model_would_read_are_refused(tmp_path: Path) -> None:
    names = ["input_ids", "token_type_ids", "attention_mask"]
    options = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names}
    folder = checkpoint(tmp_path / "m", {"tokenizer_config.json": options})
    frame = json.loads((folder / "tokenizer.json").read_text())["post_processor"]
    for piece in frame["single"]:
        next(iter(piece.values()))["type_id"] = 1
    rewrite(folder, post_processor=frame)
    with pytest.raises(CheckpointError, match="token types other than 0"):
        exported(folder, ["a"])


def test_options_without_effect_leave_the_file_as_it_is(tmp_path: Path) -> None:
    options = {key: None for keys in WITHOUT_EFFECT.values() for key in keys}
    folder = checkpoint(tmp_path / "m", {"tokenizer_config.json": options})
    assert exported(folder, ["a"])[0].tokenizer_file == folder / "tokenizer.json"
    assert of_transformers(
        checkpoint(tmp_path / "n", {"tokenizer_config.json": {"trim_offsets": False}}), ["a"]
    )


def test_the_bundled_checkpoint_is_served_byte_for_byte(tmp_path: Path) -> None:
    read = load_checkpoint(CHECKPOINT, tmp_path)
    assert read.tokenizer_file == CHECKPOINT / "tokenizer.json"
    assert read.tokenizer_sha256.startswith("d241a60d5e8f")


def test_what_is_published_is_named_after_what_it_does(tmp_path: Path) -> None:
    digests = []
    for number, lower in enumerate([True, False, False]):
        folder = checkpoint(tmp_path / str(number) / "m", {"tokenizer_config.json": {"do_lower_case": lower}})
        read, _ = exported(folder, ["a"])
        assert read.tokenizer_sha256 == sha256(read.tokenizer_file)
        digests.append(read.tokenizer_sha256)
    assert digests[0] != digests[1] == digests[2]


def test_a_class_that_is_not_written_here_goes_through_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["AB [SEP] ab", "a " * 100 + "b"]
    options = {"tokenizer_class": "FunnelTokenizer", "truncation_side": "left", "do_lower_case": False,
               "model_input_names": ["input_ids", "attention_mask"],
               "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]",
               "pad_token": "[PAD]"}  # fmt: skip
    folder = checkpoint(tmp_path / "m", {"tokenizer_config.json": options})
    file = tokenizer_file(folder, tmp_path / "work", max_tokens=20)
    ids = [encoding.ids for encoding in load_tokenizer(file, 20).encode_batch(texts)]
    assert ids == of_transformers(folder, texts, 20) != of_its_own_file(folder, texts)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        CheckpointError, match=r"is one of FunnelTokenizer, .* needs transformers: \.venv/bin/pip install"
    ):
        tokenizer_file(folder, tmp_path / "work")


def test_where_transformers_4_and_5_disagree_a_warning_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exported(checkpoint(tmp_path / "m", {"tokenizer_config.json": {"do_lower_case": False}}), ["a"])
    assert caplog.text == ""
    folder = rewrite(checkpoint(tmp_path / "n"), pre_tokenizer={"type": "Whitespace"})
    exported(folder, ["a"])
    assert (
        "n: tokenizer.json has another pre-tokenizer than a BertTokenizer of transformers 5 builds"
        in caplog.text
    )
    caplog.clear()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert exported(folder, ["a"])[0].tokenizer_file == folder / "tokenizer.json"
    assert caplog.text == ""
    spaced = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    exported(rewrite(folder, pre_tokenizer=spaced), ["a"])
    assert "n: tokenizer.json sets add_prefix_space is True and transformers 5 obeys it" in caplog.text


def test_what_transformers_itself_saves_is_understood(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    texts = short_texts(30, seed=4)
    for number, (name, model_type, kind, named, own) in enumerate(CLASSES):
        files = random_files(kind, named, own, random.Random(f"saved {number}"))
        files["config.json"] = {"model_type": model_type, "tokenizer_class": name}
        files.get("tokenizer_config.json", {}).pop("split_special_tokens", None)
        given, saved = tmp_path / f"{number}", tmp_path / f"{number}.saved"
        given.mkdir()
        for file, content in files.items():
            (given / file).write_text(json.dumps(content))
        AutoTokenizer.from_pretrained(given).save_pretrained(saved)
        (saved / "config.json").write_text(json.dumps(files["config.json"]))
        tokenizer = load_tokenizer(tokenizer_file(saved, tmp_path / "work", max_tokens=LIMIT), LIMIT)
        wanted = of_transformers(saved, texts, LIMIT)
        assert [encoding.ids for encoding in tokenizer.encode_batch(texts)] == wanted, name


def test_any_value_of_any_option_is_applied_or_refused_in_one_sentence(tmp_path: Path) -> None:
    values: list[Any] = [
        None,
        True,
        0,
        -1,
        1e30,
        "",
        "x",
        [],
        [1],
        ["a"],
        [{}],
        {},
        {"a": 1},
        {"0": {}},
        {"__type": "AddedToken"},
    ]
    keys = [*CLASS_SPECIFIC, *APPLIED, *REFUSED, *NAMED, "image_token", "auto_map", "unheard_of"]
    outcomes = set()
    for number in range(300):
        rng = random.Random(number)
        files: dict[str, dict[str, Any]] = {
            "tokenizer_config.json": {"tokenizer_class": "BertTokenizer"}, "special_tokens_map.json": {},
        }  # fmt: skip
        files[rng.choice(list(files))] |= {
            key: rng.choice(values) for key in rng.sample(keys, rng.choice([1, 2]))
        }
        folder = checkpoint(tmp_path / "m", files) if number == 0 else tmp_path / "m"
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
        try:
            outcomes.add(tokenizer_file(folder, tmp_path / "work", len(WORDS)).parent.name)
        except CheckpointError as error:
            outcomes.add(f"refused in {len(str(error).splitlines())} line")
    assert outcomes == {"m", "work", "refused in 1 line"}
