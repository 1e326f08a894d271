from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.checkpoint import load_checkpoint
from export.errors import CheckpointError
from tests.export.small import DIM, LAYERS, POSITIONS, write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", labels=3)


def test_a_checkpoint_is_read_with_its_labels_in_order_and_weights_turned_to_in_out(folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    assert checkpoint.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert checkpoint.max_tokens == POSITIONS
    assert len(checkpoint.encoder.layers) == LAYERS
    assert checkpoint.encoder.classifier.weight.shape == (DIM, 3)
    stored = load_file(folder / "model.safetensors")["classifier.weight"]
    np.testing.assert_array_equal(checkpoint.encoder.classifier.weight, stored.T)


def test_fp16_weights_are_widened_to_fp32(folder: Path) -> None:
    tensors = {k: v.astype(np.float16) for k, v in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    assert load_checkpoint(folder).encoder.words.dtype == np.float32


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_missing_or_empty_file_is_named(folder: Path, name: str, damage: str) -> None:
    (folder / name).unlink()
    if damage == "empty":
        (folder / name).touch()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(folder)


def test_weights_that_were_cut_short_are_said_to_be_damaged(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "gpt2.*distilbert"),
        ({"id2label": None}, "names no labels"),
        ({"id2label": {"0": "a", "2": "b"}}, "gaps"),
        ({"id2label": {"0": "a", "1": "b"}}, "scores 3 labels but its config names 2"),
        ({"activation": "relu"}, "activation 'relu'"),
    ],
)
def test_a_config_that_does_not_fit_gets_one_clear_sentence(
    folder: Path, change: dict[str, object], message: str
) -> None:
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_a_model_without_a_classifier_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "classifier.bias"}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"classifier\.bias"):
        load_checkpoint(folder)
