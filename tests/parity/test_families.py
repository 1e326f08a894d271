"""What is exported computes what transformers computes, whatever the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.artefact import Artefact
from export.checkpoint import load_checkpoint
from export.compatibility import TORCH, UNSUPPORTED, status
from export.errors import ExportError
from export.graph.encoder import FLAVOURS
from export.plan import PRECISIONS, ExportPlan
from export.route import route_of
from export.run import run_export
from export.spec import TARGETS
from export.torch_route import TorchRoute
from tests.support.mixed_batches import mixed
from tests.support.random_models import TOKENS, TRACED, WRITTEN, random_rows, save_model, torch_logits
from tests.support.small_checkpoints import LENIENT

BATCHES = ((1, 17), (2, 3, 8))


def largest_difference(graph: onnx.ModelProto, folder: Path, rows: list[list[int]], wanted: Any) -> float:
    """Over every text alone and in padded batches of mixed lengths."""
    file = folder / "model.onnx"
    file.write_bytes(graph.SerializeToString())
    artefact = Artefact(file, wanted.shape[1])
    found = [artefact.alone(rows), *(mixed(artefact, rows, sizes) for sizes in BATCHES)]
    return max(float(np.abs(logits - wanted).max()) for logits in found)


@pytest.mark.parametrize("family", WRITTEN)
@pytest.mark.parametrize(("labels", "kind"), [(2, "single"), (5, "single"), (5, "multi")])
def test_a_written_family_gives_the_logits_of_transformers_in_every_flavour(
    tmp_path: Path, family: str, labels: int, kind: str
) -> None:
    problem = f"{kind}_label_classification"
    model = save_model(WRITTEN[family], tmp_path, labels, problem_type=problem)
    checkpoint = load_checkpoint(tmp_path)
    assert (checkpoint.max_tokens, checkpoint.problem_type) == (TOKENS, problem)
    rows = random_rows(TOKENS)
    wanted = torch_logits(model, rows)
    assert wanted.std(axis=0).min() > 0.1  # else agreeing would be no news
    route = route_of(checkpoint)
    for flavour in FLAVOURS:
        assert largest_difference(route.fp32_graph(flavour), tmp_path, rows, wanted) < 1e-4
    np.testing.assert_allclose(route.reference(rows[:6]), wanted[:6], atol=1e-4)


@pytest.mark.parametrize("architecture", TRACED)
def test_torch_exports_other_architectures_with_any_batch_and_length(
    tmp_path: Path, architecture: str
) -> None:
    model = save_model(TRACED[architecture], tmp_path, 3)
    checkpoint = load_checkpoint(tmp_path)
    assert (checkpoint.weights, checkpoint.max_tokens) == (None, 64)
    rows = random_rows(64)  # traced with 2 texts of 7 tokens
    wanted = torch_logits(model, rows)
    assert wanted.std(axis=0).min() > 0.1
    route = route_of(checkpoint)
    assert isinstance(route, TorchRoute)
    np.testing.assert_allclose(route.reference(rows), wanted, atol=1e-4)
    graph = route.fp32_graph("plain")
    assert str(Path(__file__).parents[2]).encode() not in graph.SerializeToString()
    assert largest_difference(graph, tmp_path, rows, wanted) < 1e-4
    assert largest_difference(route.fp16_graph("plain"), tmp_path, rows, wanted) < 5e-2


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_cell_of_the_torch_row_is_what_it_says(tmp_path: Path, precision: str, target: str) -> None:
    model = save_model(TRACED["electra"], tmp_path / "m", 3)
    places = tmp_path / "models", tmp_path / "artefacts"
    said = status(TORCH, precision, target)
    options: dict[str, Any] = {"target": target, "precision": precision, "limits": LENIENT, "timing": None}
    if said == UNSUPPORTED:
        with pytest.raises(ExportError):
            run_export(ExportPlan(tmp_path / "m", *places, all_precisions=False, **options))
        return
    result = run_export(ExportPlan(tmp_path / "m", *places, all_precisions=False, **options))
    artefact = Artefact(tmp_path / "artefacts" / "local-m" / result.artefact / "model.onnx", 3)
    rows = random_rows(64)
    moved = np.abs(mixed(artefact, rows) - torch_logits(model, rows))
    # Rounding a random model to INT8 moves single logits far; on average it must not.
    found, bound = (moved.mean(), 0.1) if precision == "int8" else (moved.max(), 5e-2)
    assert found < (1e-4 if precision == "fp32" else bound)


def test_a_bare_encoder_is_not_given_a_random_head(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from export.errors import CheckpointError

    save_model(TRACED["electra"], tmp_path, 3)
    file = tmp_path / "model.safetensors"
    bare = {name: value for name, value in load_file(file).items() if not name.startswith("classifier")}
    save_file(bare, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no tensor 'classifier.*no trained text classifier"):
        route_of(load_checkpoint(tmp_path)).fp32_graph("plain")
