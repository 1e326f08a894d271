from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.checkpoint import load_checkpoint
from export.errors import CheckpointError
from tests.support.small_checkpoints import DIM, FAMILIES, LAYERS, POSITIONS, write_checkpoint

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", labels=3)


def change_config(folder: Path, **changes: Any) -> None:
    """A change to None takes the setting out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def change_weights(folder: Path, **changes: Any) -> None:
    """A change to None takes the tensor out; double underscores stand for dots."""
    tensors = load_file(folder / WEIGHTS) | {k.replace("__", "."): v for k, v in changes.items()}
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / WEIGHTS)


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_checkpoint_is_read_with_its_labels_in_order_and_weights_turned_to_in_out(folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    assert checkpoint.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert checkpoint.max_tokens == POSITIONS
    assert len(checkpoint.encoder.layers) == LAYERS
    assert checkpoint.encoder.classifier.weight.shape == (DIM, 3)
    stored = load_file(folder / WEIGHTS)["classifier.weight"]
    np.testing.assert_array_equal(checkpoint.encoder.classifier.weight, stored.T)


@pytest.mark.parametrize(("family", "pad_id", "activation"), [
    ("distilbert", 0, "relu"), ("bert", 0, "tanh"), ("roberta", 1, "tanh"), ("xlm-roberta", 1, "tanh"),
])  # fmt: skip
def test_every_family_comes_out_in_one_shape(
    tmp_path: Path, family: str, pad_id: int, activation: str
) -> None:
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "m", labels=4, family=family))
    assert (checkpoint.family, checkpoint.pad_id, checkpoint.max_tokens) == (family, pad_id, POSITIONS)
    assert checkpoint.encoder.activation == activation
    assert checkpoint.encoder.positions.shape == (POSITIONS, DIM)
    assert checkpoint.encoder.classifier.weight.shape == (DIM, 4)


def test_positions_of_roberta_start_after_padding_and_hold_the_token_type(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", family="roberta")
    stored = load_file(folder / WEIGHTS)
    table = stored["roberta.embeddings.position_embeddings.weight"][2:]
    kind = stored["roberta.embeddings.token_type_embeddings.weight"][0]
    np.testing.assert_array_equal(load_checkpoint(folder).encoder.positions, table + kind)


def test_a_smaller_limit_of_the_tokenizer_is_kept_and_a_senseless_one_is_not(folder: Path) -> None:
    for limit, wanted in [(32, 32), (int(1e30), POSITIONS), (0, POSITIONS), (POSITIONS + 2, POSITIONS)]:
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
        assert load_checkpoint(folder).max_tokens == wanted


@pytest.mark.parametrize(("limit", "logged"), [(4, 1), (32, 0), (int(1e30), 0)])
def test_a_limit_that_is_not_obeyed_is_logged(
    folder: Path, caplog: pytest.LogCaptureFixture, limit: int, logged: int
) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
    load_checkpoint(folder)
    assert len(caplog.messages) == logged
    assert all(f"model_max_length is {limit}" in message for message in caplog.messages)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_weights_of_any_float_become_fp32(folder: Path, kind: Any) -> None:
    tensors = {name: value.astype(kind) for name, value in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    encoder = load_checkpoint(folder).encoder
    assert encoder.words.dtype == np.float32
    stored = tensors["classifier.weight"].astype(np.float32)
    np.testing.assert_array_equal(encoder.classifier.weight, stored.T)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefixes_and_old_names_do_not_matter(tmp_path: Path, family: str) -> None:
    folder = write_checkpoint(tmp_path / "m", family=family)
    wanted = load_checkpoint(folder).encoder

    def old(name: str) -> str:
        for prefix in ("distilbert.", "bert.", "roberta."):
            name = name.removeprefix(prefix)
        for new, ancient in ((".weight", ".gamma"), (".bias", ".beta")):
            name = name.replace(f"LayerNorm{new}", f"LayerNorm{ancient}")
        return f"module.{name}"

    save_file({old(k): v for k, v in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    found = load_checkpoint(folder).encoder
    np.testing.assert_array_equal(found.words, wanted.words)
    np.testing.assert_array_equal(found.embedding_norm.gamma, wanted.embedding_norm.gamma)
    np.testing.assert_array_equal(found.layers[1].output_norm.beta, wanted.layers[1].output_norm.beta)


def test_a_name_that_is_there_twice_is_refused(folder: Path) -> None:
    again = load_file(folder / WEIGHTS)["distilbert.embeddings.LayerNorm.bias"] + 1
    change_weights(folder, embeddings__LayerNorm__beta=again)
    message = refusal(folder)
    assert "'distilbert.embeddings.LayerNorm.bias'" in message
    assert "'embeddings.LayerNorm.beta'" in message


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_the_config_does_not_count_are_refused(tmp_path: Path, family: str) -> None:
    folder = write_checkpoint(tmp_path / "m", family=family)
    change_config(folder, **{"n_layers" if family == "distilbert" else "num_hidden_layers": LAYERS - 1})
    message = refusal(folder)
    assert f".layer.{LAYERS - 1}." in message
    assert "correct the number of layers" in message


def test_tensors_beside_the_layers_may_be_left_over(folder: Path) -> None:
    change_weights(folder, vocab_transform__weight=np.zeros((DIM, DIM), np.float32))
    assert len(load_checkpoint(folder).encoder.layers) == LAYERS


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_file_that_may_not_be_read_is_no_damage(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def forbidden(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", forbidden)
    assert refusal(folder) == f"model/{name} cannot be read: Permission denied."


def split(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def test_sharded_weights_are_one_model(folder: Path) -> None:
    whole = load_checkpoint(folder)
    split(folder)
    sharded = load_checkpoint(folder)
    np.testing.assert_array_equal(sharded.encoder.words, whole.encoder.words)
    np.testing.assert_array_equal(sharded.encoder.classifier.bias, whole.encoder.classifier.bias)
    assert len(sharded.weights_sha256) == 64
    assert sharded.weights_sha256 != whole.weights_sha256


def test_a_missing_shard_is_named(folder: Path) -> None:
    split(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors" in refusal(folder)


def test_an_index_cannot_point_outside_the_folder(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / WEIGHTS)
    index = {"weight_map": {"classifier.bias": f"../{WEIGHTS}"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    assert "no weights file" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "a folder"])
def test_a_missing_or_empty_file_is_named(folder: Path, name: str, damage: str) -> None:
    (folder / name).unlink()
    if damage == "empty":
        (folder / name).touch()
    if damage == "a folder":
        (folder / name).mkdir()
    assert name in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_damaged_description_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert name.split(".", maxsplit=1)[0] in refusal(folder)


def cut_short(content: bytes) -> bytes:
    return content[:-1000]


def noise(content: bytes) -> bytes:
    return bytes(range(256)) * (len(content) // 256)


def header_past_the_end(content: bytes) -> bytes:
    return struct.pack("<Q", 2**40) + content[8:]


def header_alone(content: bytes) -> bytes:
    return content[:8]


@pytest.mark.parametrize("damage", [cut_short, noise, header_past_the_end, header_alone])
def test_weights_that_cannot_be_read_are_reported_as_damaged(folder: Path, damage: Any) -> None:
    file = folder / WEIGHTS
    file.write_bytes(damage(file.read_bytes()))
    assert "damaged or cut short" in refusal(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"])
def test_pickled_weights_are_never_opened(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / WEIGHTS).unlink()
    trap = tmp_path / "opened"
    (folder / name).write_bytes(f"cos\nmkdir\n(S'{trap}'\ntR.".encode())
    message = refusal(folder)
    assert name in message
    assert "safe_serialization=True" in message
    assert not trap.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["classifier__weight", "distilbert__embeddings__word_embeddings__weight"])
def test_weights_that_are_not_finite_are_refused(folder: Path, name: str, value: float) -> None:
    tensor = load_file(folder / WEIGHTS)[name.replace("__", ".")]
    tensor[1, 2] = value
    change_weights(folder, **{name: tensor})
    assert "not finite" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distilbert__transformer__layer__0__ffn__lin1__weight": np.zeros((DIM, DIM), np.float32)}, "shape"),
        ({"distilbert__embeddings__LayerNorm__bias": np.zeros((DIM + 1,), np.float32)}, "shape"),
        ({"distilbert__embeddings__position_embeddings__weight": np.zeros((DIM,), np.float32)}, "shape"),
        ({"classifier__bias": np.zeros((4,), np.float32)}, "shape"),
        ({"classifier__weight": np.zeros((), np.float32)}, "shape"),
        ({"distilbert__embeddings__word_embeddings__weight": np.zeros((0, DIM), np.float32)}, "shape"),
        (
            {"distilbert__embeddings__word_embeddings__weight": np.zeros((9, DIM), np.float32)},
            "belong together",
        ),
        ({"distilbert__embeddings__word_embeddings__weight": np.zeros((56, DIM), np.int8)}, "unquantised"),
        ({"classifier__bias": None}, r"no tensor 'classifier.bias'; it is no trained text classifier"),
        ({"classifier__weight": None}, r"no tensor 'classifier.weight'; it is no trained text classifier"),
    ],
)
def test_tensors_that_do_not_fit_their_config_are_named(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    change_weights(folder, **change)
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id2label": None}, "scores 3 labels, but its config.json has neither id2label nor num_labels"),
        ({"id2label": None}, "which means 2; add id2label with 3 names"),
        ({"id2label": None, "num_labels": 2}, "scores 3 labels but its config names 2"),
        ({"id2label": {}}, "names no labels"),
        ({"id2label": ["a", "b", "c"]}, "names no labels"),
        ({"id2label": {"0": "a", "2": "b", "3": "c"}}, "gaps"),
        ({"id2label": {"0": "a", "1": "b"}}, "scores 3 labels but its config names 2"),
        ({"id2label": {"0": "a", "1": "a", "2": "b"}}, "all different"),
        ({"id2label": {"0": "a", "1": "", "2": "b"}}, "all different"),
        ({"id2label": {"0": "a"}}, "names 1 label. One label makes a reranker"),
        ({"id2label": None, "num_labels": 1}, "scores 3 labels but its config names 1 label"),
        ({"problem_type": "regression"}, "'regression'"),
        ({"problem_type": 3}, "trained for 3"),
        ({"architectures": ["DistilBertForMaskedLM"]}, "DistilBertForMaskedLM, not a text classifier"),
        ({"is_decoder": True}, "decoder"),
        ({"add_cross_attention": True}, "decoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"architectures": 5}, "architectures is 5; it must be a list of names"),
        ({"architectures": "BertForMaskedLM"}, "architectures is 'BertForMaskedLM'; it must be a list"),
        ({"architectures": [None]}, "architectures is [None]; it must be a list"),
        ({"id2label": {"0": "a", "1": "\ud800", "2": "b"}}, "half a character"),
        ({"id2label": {"0": "a", "1": None, "2": "b"}}, "names a label None in id2label"),
        ({"id2label": {"0": "a", "1": {"x": 1}, "2": "b"}}, "names a label {'x': 1} in id2label"),
        ({"id2label": None, "num_labels": 30_000_000}, "num_labels is 30000000; at most 10000"),
        ({"n_heads": 5}, "5 attention heads"),
        ({"n_heads": None}, "n_heads is None"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"n_layers": 3}, "no tensor"),
        ({"dim": "24"}, "dim is '24'"),
        ({"pad_token_id": 56}, "pad_token_id is 56"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
    ],
)
def test_a_config_that_will_not_do_gets_one_clear_sentence(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    change_config(folder, **change)
    assert message in refusal(folder)


def test_labels_that_are_only_counted_are_named_as_transformers_does(folder: Path) -> None:
    change_config(folder, id2label=None, num_labels=3)
    assert load_checkpoint(folder).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_a_silent_config_means_two_labels_as_in_transformers(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "two", labels=2)
    change_config(folder, id2label=None)
    assert load_checkpoint(folder).labels == ("LABEL_0", "LABEL_1")


def test_labels_may_be_numbers(folder: Path) -> None:
    change_config(folder, id2label={"0": 1, "1": 2.5, "2": "three"})
    assert load_checkpoint(folder).labels == ("1", "2.5", "three")


@pytest.mark.parametrize("positions", [1, 2])
def test_a_model_that_the_special_tokens_alone_fill_is_refused(folder: Path, positions: int) -> None:
    table = np.zeros((positions, DIM), np.float32)
    change_weights(folder, distilbert__embeddings__position_embeddings__weight=table)
    assert f"takes {positions} tokens, and its tokenizer adds 2 to every text" in refusal(folder)


def test_one_token_beside_the_special_ones_is_enough(folder: Path) -> None:
    table = np.zeros((3, DIM), np.float32)
    change_weights(folder, distilbert__embeddings__position_embeddings__weight=table)
    assert load_checkpoint(folder).max_tokens == 3


@pytest.mark.parametrize("change", [{"model_type": "gpt2"}, {"activation": "relu"}])
def test_what_needs_torch_names_the_extra_where_it_is_missing(
    folder: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    change_config(folder, **change)
    message = refusal(folder)
    assert "without torch" in message
    assert "pip install -e '.[torch]'" in message
