"""What the real Triton makes of a repository with several models and versions."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from embedded.server import RESTRICTED_KEY, TritonServer
from export.plan import ExportPlan
from export.repository.inventory import Published, read_inventory, verify_repository
from export.run import run_export
from tests.support.small_checkpoints import LENIENT, write_checkpoint
from tests.triton.conftest import FP32, INT8

pytestmark = pytest.mark.needs_triton


def served(triton: TritonServer) -> dict[str, str]:
    """Name and version of every model that is ready."""
    with InferenceServerClient(triton.address) as client:
        index = client.get_model_repository_index(
            headers={f"triton-grpc-protocol-{RESTRICTED_KEY}": triton.secret}
        )
    return {model.name: model.version for model in index.models if model.state == "READY"}


def test_two_models_side_by_side_share_one_tokenizer_and_both_answer(
    triton: TritonServer, client: httpx.Client
) -> None:
    models = {model.name: model for model in read_inventory(triton.repository)}
    assert models[INT8].tokenizer == models[FP32].tokenizer
    assert served(triton) == dict.fromkeys(
        {folder for model in models.values() for folder in model.folders}, "1"
    )
    for name in (INT8, FP32):
        assert client.post(name, json={"text": "This pizza is great!"}).json()["success"]


def logits(triton: TritonServer, model: Published) -> npt.NDArray[np.float32]:
    """Logits FP32 [2, labels] of two texts."""
    texts = InferInput("TEXT", [2, 1], "BYTES")
    texts.set_data_from_numpy(np.array([[b"a b c"], [b"d e"]], dtype=np.object_))
    with InferenceServerClient(triton.address) as client:
        answer = client.infer(
            model.ensemble, [texts], headers={f"triton-grpc-protocol-{RESTRICTED_KEY}": triton.secret}
        )
    found: npt.NDArray[np.float32] = answer.as_numpy("logits")
    return found


def test_a_server_serves_the_newest_version(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    found = []
    for seed, version in ((0, "1"), (1, "2")):
        source = write_checkpoint(tmp_path / f"mood{seed}", labels=3, seed=seed)
        run_export(
            ExportPlan(
                source, repository, tmp_path / "artefacts", name="@x/mood", timing=None, limits=LENIENT
            )
        )
        (model,) = read_inventory(repository)
        with TritonServer(repository) as triton:
            assert served(triton) == {
                model.ensemble: version, model.encoder: version, model.tokenizer: "1",
            }  # fmt: skip
            found.append(logits(triton, model))
    assert sorted(path.name for path in (repository / model.encoder).iterdir() if path.name.isdecimal()) == [
        "1",
        "2",
    ]
    assert verify_repository(repository) == []
    assert np.abs(found[0] - found[1]).max() > 0.1


@pytest.mark.parametrize("pad_id", [0, 1])
def test_rows_are_filled_up_with_the_token_of_the_checkpoint(tmp_path: Path, pad_id: int) -> None:
    source = write_checkpoint(tmp_path / "mood", labels=3, pad_token_id=pad_id)
    run_export(
        ExportPlan(
            source, tmp_path / "models", tmp_path / "artefacts", name="@x/mood", timing=None, limits=LENIENT
        )
    )
    (model,) = read_inventory(tmp_path / "models")
    assert model.tokenizer.endswith("_pad1") == (pad_id == 1)
    with TritonServer(tmp_path / "models") as triton, InferenceServerClient(triton.address) as client:
        text = InferInput("TEXT", [2, 1], "BYTES")
        text.set_data_from_numpy(np.array([[b"a b c"], [b"d"]], dtype=np.object_))
        answer = client.infer(
            model.tokenizer, [text], headers={f"triton-grpc-protocol-{RESTRICTED_KEY}": triton.secret}
        )
    assert answer.as_numpy("input_ids").tolist() == [[2, 4, 5, 6, 3], [2, 7, 3, pad_id, pad_id]]
