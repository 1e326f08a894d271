from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from export.artefact import Artefact
from export.checkpoint import load_checkpoint
from export.errors import CheckpointError, VerificationError
from export.graph.encoder import build_graph
from export.plan import ExportPlan
from export.route import WrittenRoute
from export.run import run_export
from export.verify import LARGEST_SHIFT, verify_fp32
from tests.support.small_checkpoints import LENIENT, POSITIONS, write_checkpoint

ROWS = [[2, *range(4, 4 + length), 3] for length in range(1, 40)] + [[5] * POSITIONS]


def test_the_graph_of_the_same_weights_passes_and_of_slightly_other_ones_does_not(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "small", labels=3))
    file = tmp_path / "model.onnx"
    file.write_bytes(build_graph(checkpoint.encoder, "fp32").SerializeToString())
    artefact = Artefact(file, 3)
    route = WrittenRoute(checkpoint.encoder)
    assert verify_fp32(artefact, ROWS, route, checkpoint.problem_type) < LARGEST_SHIFT / 10

    classifier = checkpoint.encoder.classifier
    moved = dataclasses.replace(classifier, bias=classifier.bias + np.array([0.01, 0, 0], np.float32))
    other = WrittenRoute(dataclasses.replace(checkpoint.encoder, classifier=moved))
    with pytest.raises(VerificationError, match="differ from the reference's"):
        verify_fp32(artefact, ROWS, other, checkpoint.problem_type)


class Overflowing:
    """A route whose reference is as torch's is when FP32 has overflowed."""

    def fp32_graph(self, flavour: str) -> onnx.ModelProto:
        raise NotImplementedError

    fp16_graph = fp32_graph

    def reference(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        return np.full((len(rows), 2), np.inf)


def test_a_reference_that_is_not_finite_is_the_checkpoints_fault(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "small"))
    artefact = Artefact(build_graph(checkpoint.encoder, "fp32").SerializeToString(), 2)
    with pytest.raises(CheckpointError, match="too large for FP32") as caught:
        verify_fp32(artefact, ROWS, Overflowing(), checkpoint.problem_type)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("family", ["distilbert", "bert"])
@pytest.mark.parametrize("part", ["embeddings", "attention", "LayerNorm", ""])
def test_weights_too_large_for_fp32_stop_the_export_as_the_checkpoints_fault(
    tmp_path: Path, family: str, part: str
) -> None:
    source = write_checkpoint(tmp_path / "huge", family=family)
    tensors = load_file(source / "model.safetensors")
    save_file({k: v * 1e20 if part in k else v for k, v in tensors.items()}, source / "model.safetensors")
    places = tmp_path / "models", tmp_path / "artefacts"
    with pytest.raises(CheckpointError, match="too large for FP32"):
        run_export(ExportPlan(source, *places, limits=LENIENT, timing=None))
    assert not places[0].exists()
