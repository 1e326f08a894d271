"""The copy of a repository with the null model, read the way the embedded server reads it."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from embedded.repository import check_repository
from export.repository.inventory import read_inventory
from loadtest.bench.null_repository import NULL_NAME, ModelFolders, copy_with_null
from tests.support.bundled import bundled_repository

NAME = "@cf/huggingface/distilbert-sst-2-int8"


def _copy(folder: Path) -> tuple[ModelFolders, ModelFolders]:
    (model,) = (model for model in read_inventory(bundled_repository()) if model.name == NAME)
    real = ModelFolders(model.ensemble, model.tokenizer, model.encoder)
    return real, copy_with_null(bundled_repository(), real, folder)


def _config(folder: Path) -> pb.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig())


def test_the_copy_can_be_served_and_names_both_models(tmp_path: Path) -> None:
    _copy(tmp_path)
    assert {model.name for model in check_repository(tmp_path)} == {NAME, NULL_NAME}


def test_the_null_model_shares_the_tokenizer_and_the_shape_of_the_real_one(tmp_path: Path) -> None:
    real, null = _copy(tmp_path)
    real_steps, null_steps = (
        [step.model_name for step in _config(tmp_path / model.ensemble).ensemble_scheduling.step]
        for model in (real, null)
    )
    assert real_steps == [real.tokenizer, real.encoder]
    assert null_steps == [real.tokenizer, null.encoder]
    encoder, nothing = (_config(tmp_path / model.encoder) for model in (real, null))
    assert nothing.name == null.encoder
    assert (nothing.input, nothing.output) == (encoder.input, encoder.output)
    assert (nothing.instance_group, nothing.backend) == (encoder.instance_group, "python")
    assert not nothing.model_warmup
    compile((tmp_path / null.encoder / "1" / "model.py").read_text(encoding="utf-8"), "model.py", "exec")
