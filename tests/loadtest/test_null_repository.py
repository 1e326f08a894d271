"""The copy of a repository with the null model, read the way the embedded server reads it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.grpc import model_config_pb2 as pb

from embedded.repository import check_repository
from embedded.server import RESTRICTED_KEY, TritonServer
from export.repository.inventory import read_inventory
from loadtest.bench.null_repository import NULL_NAME, ModelFolders, copy_with_null
from tests.support.bundled import bundled_repository
from tests.support.layouts import publish_joined
from tests.support.triton_steps import answers, fake_pb_utils, load_step, strings, texts

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


@pytest.fixture
def joined(tmp_path: Path) -> tuple[Path, ModelFolders, ModelFolders]:
    """A copy of a model in the layout ``joined``, with its null twin."""
    model = publish_joined(bundled_repository(), NAME, tmp_path / "models")
    real = ModelFolders(model.ensemble, model.tokenizer, model.encoder)
    return tmp_path / "copy", real, copy_with_null(tmp_path / "models", real, tmp_path / "copy")


def test_a_joined_model_has_a_null_twin_that_can_be_served(
    joined: tuple[Path, ModelFolders, ModelFolders],
) -> None:
    copy, real, null = joined
    assert {model.name for model in check_repository(copy)} == {NAME, NULL_NAME}
    assert {path.name for path in copy.iterdir()} == {
        real.ensemble,
        real.encoder,
        null.ensemble,
        null.encoder,
    }
    (step,) = _config(copy / null.ensemble).ensemble_scheduling.step
    assert step.model_name == null.encoder == null.tokenizer != real.encoder
    wanted, found = _config(copy / real.encoder), _config(copy / null.encoder)
    wanted.name = null.encoder
    wanted.ClearField("model_warmup")
    assert found == wanted


def test_the_null_twin_of_a_joined_model_tokenizes_and_answers_a_constant(
    joined: tuple[Path, ModelFolders, ModelFolders], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, _, null = joined
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake_pb_utils())
    config = _config(copy / null.encoder)
    folder = copy / null.encoder / "1"
    model = load_step(
        {file.name: str(file) for file in folder.glob("*.py")},
        folder,
        {
            "input": [{"name": each.name, "dims": list(each.dims)} for each in config.input],
            "output": [{"name": each.name, "dims": list(each.dims)} for each in config.output],
            "parameters": strings({key: value.string_value for key, value in config.parameters.items()}),
        },
    )
    short, long = answers(model, texts("This pizza is great!", "", "good " * 600), texts("good " * 20_000))
    model.finalize()
    assert short.tensors["logits"].tolist() == [[0.0, 0.0]] * 3
    assert short.tensors["token_count"].tolist() == [[7], [2], [602]]
    assert long.tensors["token_count"][0, 0] > 512


@pytest.mark.needs_triton
def test_triton_serves_a_joined_model_and_its_null_twin(
    joined: tuple[Path, ModelFolders, ModelFolders],
) -> None:
    copy, real, null = joined
    text = InferInput("TEXT", [2, 1], "BYTES")
    text.set_data_from_numpy(np.array([[b"This pizza is great!"], [b"a"]], dtype=np.object_))
    with TritonServer(copy) as triton, InferenceServerClient(triton.address) as client:
        headers = {f"triton-grpc-protocol-{RESTRICTED_KEY}": triton.secret}
        found, nothing = (client.infer(each.ensemble, [text], headers=headers) for each in (real, null))
    assert nothing.as_numpy("logits").tolist() == [[0.0, 0.0]] * 2
    assert np.abs(found.as_numpy("logits")).min() > 0
    assert found.as_numpy("token_count").tolist() == nothing.as_numpy("token_count").tolist() == [[7], [3]]
