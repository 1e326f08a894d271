"""How many tokens a model takes is found by asking it, and what cannot be exported says why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from export.artefact import Artefact
from export.checkpoint import load_checkpoint
from export.checkpoint.torch_model import DEFAULT_LIMIT
from export.errors import CheckpointError
from export.plan import ExportPlan
from export.route import route_of
from export.run import run_export
from tests.support.mixed_batches import mixed
from tests.support.random_models import COUNTING, TRACED, UNLIMITED, random_rows, save_model, torch_logits
from tests.support.small_checkpoints import LENIENT
from tritonflare.export import export

WEIGHTS = "model.safetensors"


def limit_tokenizer(folder: Path, tokens: int) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": tokens}))


@pytest.mark.parametrize("architecture", COUNTING)
def test_positions_that_count_from_the_padding_id_leave_fewer_tokens(
    tmp_path: Path, architecture: str
) -> None:
    model = save_model(COUNTING[architecture], tmp_path, 3)
    checkpoint = load_checkpoint(tmp_path, tmp_path / "work")
    assert (checkpoint.max_tokens, checkpoint.vocabulary, checkpoint.pad_id) == (64, 200, 1)
    rows = [*random_rows(64)[:6], [5] * 64]
    reference = route_of(checkpoint).reference
    np.testing.assert_allclose(reference(rows), torch_logits(model, rows), atol=1e-4)
    with pytest.raises(CheckpointError, match="cannot score a text of 65 tokens"):
        reference([[5] * 65])


@pytest.mark.parametrize(("named", "limit"), [(32, 32), (64, 64), (65, 64), (514, 64)])
def test_a_limit_of_the_tokenizer_is_kept_where_the_model_takes_it(
    tmp_path: Path, named: int, limit: int
) -> None:
    save_model(COUNTING["ibert"], tmp_path, 2)
    limit_tokenizer(tmp_path, named)
    assert load_checkpoint(tmp_path, tmp_path / "work").max_tokens == limit


def test_a_table_that_counts_from_the_padding_id_is_exported_up_to_its_last_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "export.evaluation.plots", None)  # pictures take long
    model = save_model(COUNTING["ibert"], tmp_path / "m", 3)
    plan = ExportPlan(
        tmp_path / "m", tmp_path / "models", tmp_path / "artefacts", precision="fp32", limits=LENIENT,
        timing=None, all_precisions=False,
    )  # fmt: skip
    assert run_export(plan).model.max_tokens == 64
    artefact = Artefact(tmp_path / "artefacts" / "local-m" / "fp32" / "model.onnx", 3)
    rows = random_rows(64)
    np.testing.assert_allclose(mixed(artefact, rows), torch_logits(model, rows), atol=1e-4)


def test_a_model_without_a_limit_gets_one_that_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_model(UNLIMITED["xlnet"], tmp_path, 3)
    assert load_checkpoint(tmp_path, tmp_path / "work").max_tokens == DEFAULT_LIMIT
    assert f"texts are cut after {DEFAULT_LIMIT} tokens; model_max_length in" in caplog.text
    caplog.clear()
    limit_tokenizer(tmp_path, 600)
    assert load_checkpoint(tmp_path, tmp_path / "work").max_tokens == 600
    assert caplog.text == ""


def test_what_torch_cannot_export_is_one_sentence_and_no_traceback(tmp_path: Path) -> None:
    save_model(COUNTING["longformer"], tmp_path / "m", 3)
    places = ["--repository", str(tmp_path / "models"), "--artefacts", str(tmp_path / "artefacts")]
    result = CliRunner().invoke(export, [str(tmp_path / "m"), "--quick", *places])
    assert result.exit_code == 2
    assert "torch cannot export m, a 'longformer' model (" in result.output
    assert len(result.output.splitlines()) < 8
    assert not (tmp_path / "models").exists()


def change_config(folder: Path, **changes: Any) -> None:
    """A change to None takes the setting out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_a_model_of_torch_without_named_labels_has_two(tmp_path: Path) -> None:
    save_model(TRACED["electra"], tmp_path / "two", 2)
    change_config(tmp_path / "two", id2label=None, label2id=None)
    assert load_checkpoint(tmp_path / "two").labels == ("LABEL_0", "LABEL_1")
    save_model(TRACED["electra"], tmp_path / "three", 3)
    change_config(tmp_path / "three", id2label=None, label2id=None)
    with pytest.raises(CheckpointError, match=r"scores 3 labels, but its config\.json has neither"):
        load_checkpoint(tmp_path / "three")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    save_model(TRACED["electra"], tmp_path, 3)
    tensors = load_file(tmp_path / WEIGHTS)
    name = "electra.encoder.layer.0.intermediate.dense.bias"
    save_file(tensors | {name: np.zeros(7, np.float32)}, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"'{name}' has shape \[7\] where its config asks for \[96\]"):
        load_checkpoint(tmp_path, tmp_path / "work")
