from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from export.artefact import Artefact
from export.checkpoint import Checkpoint, load_checkpoint
from export.graph.encoder import PRECISIONS, build_graph
from export.graph.linear import quantise_columns
from export.reference import logits as reference_logits
from tests.export.small import POSITIONS, WORDS, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(write_checkpoint(tmp_path_factory.mktemp("small") / "model", labels=5))


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    rng = np.random.default_rng(3)
    lengths = [1, 2, POSITIONS, *rng.integers(3, POSITIONS, 40)]
    return [rng.integers(0, len(WORDS), length).tolist() for length in lengths]


def load(checkpoint: Checkpoint, precision: str, folder: Path) -> Artefact:
    model = build_graph(checkpoint.encoder, precision)
    onnx.checker.check_model(model)
    file = folder / "model.onnx"
    file.write_bytes(model.SerializeToString())
    return Artefact(file, len(checkpoint.labels))


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 2e-5), ("fp16", 3e-2), ("int8", 0.5)])
def test_the_graph_computes_the_reference(
    checkpoint: Checkpoint, rows: list[list[int]], tmp_path: Path, precision: str, bound: float
) -> None:
    wanted = np.array([reference_logits(checkpoint.encoder, row) for row in rows])
    assert np.abs(wanted).max() > 1  # else the bounds below would say nothing
    found = load(checkpoint, precision, tmp_path).alone(rows)
    assert np.abs(found - wanted).max() < bound


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", [2, 7, 17, 43])
def test_padding_and_neighbours_do_not_change_an_answer(
    checkpoint: Checkpoint, rows: list[list[int]], tmp_path: Path, precision: str, batch: int
) -> None:
    artefact = load(checkpoint, precision, tmp_path)
    shift = np.abs(artefact.mixed(rows, [batch]) - artefact.alone(rows)).max()
    # FP16 rounds where FP32 adds in another order; the other two may differ in the last bits only.
    assert shift < (2e-2 if precision == "fp16" else 1e-5)


def test_the_int8_graph_multiplies_integers_in_every_layer(checkpoint: Checkpoint) -> None:
    model = build_graph(checkpoint.encoder, "int8")
    products = [node.op_type for node in model.graph.node if "Mat" in node.op_type]
    assert products == ["MatMulIntegerToFloat"] * 6 * len(checkpoint.encoder.layers)
    assert not [node for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"]


def test_quantised_columns_are_within_half_a_step_and_survive_zeros() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (64, 9)).astype(np.float32)
    weight[:, 4] = 0
    quantised, scale = quantise_columns(weight)
    assert quantised.dtype == np.int8
    assert quantised.min() >= -127
    assert np.abs(quantised * scale - weight).max() <= scale.max() * 0.5001
    assert not quantised[:, 4].any()


def test_an_all_zero_row_of_activations_does_not_divide_by_zero(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    for layer in checkpoint.encoder.layers:
        assert layer.output_norm.gamma.shape == layer.output_norm.beta.shape
    norm = checkpoint.encoder.embedding_norm
    saved = norm.gamma.copy(), norm.beta.copy()
    norm.gamma[:], norm.beta[:] = 0, 0  # the first quantisation now sees nothing but zeros
    try:
        assert np.isfinite(load(checkpoint, "int8", tmp_path).alone([[2, 5, 3]])).all()
    finally:
        norm.gamma[:], norm.beta[:] = saved
