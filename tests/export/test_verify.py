from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from export.artefact import Artefact
from export.checkpoint import load_checkpoint
from export.errors import VerificationError
from export.graph.encoder import build_graph
from export.route import WrittenRoute
from export.verify import LARGEST_SHIFT, verify_fp32
from tests.export.small import POSITIONS, write_checkpoint

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
