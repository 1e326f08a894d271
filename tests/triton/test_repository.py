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
from tests.triton.conftest import FP32, INT8, JOINED

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
    assert (models[JOINED].layout, models[INT8].layout) == ("joined", "steps")
    assert served(triton) == dict.fromkeys(
        {folder for model in models.values() for folder in model.folders}, "1"
    )
    for name in (INT8, FP32, JOINED):
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
    for seed, version, layout in (
        (0, "1", "steps"),
        (1, "2", "steps"),
        (1, "3", "joined"),
        (0, "4", "joined"),
    ):
        source = write_checkpoint(tmp_path / f"mood{seed}", labels=3, seed=seed)
        run_export(
            ExportPlan(
                source, repository, tmp_path / "artefacts", name="@x/mood", timing=None, limits=LENIENT,
                layout=layout,
            )
        )  # fmt: skip
        (model,) = read_inventory(repository)
        steps = {model.encoder: version}
        if layout == "steps":
            steps |= {model.tokenizer: "1"}
        with TritonServer(repository) as triton:
            assert served(triton) == {model.ensemble: version, **steps}
            found.append(logits(triton, model))
        kept = {path.name for path in (repository / model.encoder).iterdir() if path.name.isdecimal()}
        assert kept == ({version} if version in "13" else {str(int(version) - 1), version})
    assert verify_repository(repository) == []
    assert np.abs(found[0] - found[1]).max() > 0.1
    for steps_gave, joined_gives in ((found[1], found[2]), (found[0], found[3])):
        np.testing.assert_allclose(steps_gave, joined_gives, atol=1e-6)


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
