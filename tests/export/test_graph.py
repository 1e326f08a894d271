from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from export.artefact import Artefact
from export.checkpoint import Checkpoint, load_checkpoint
from export.checkpoint.model import Linear
from export.errors import ExportError
from export.graph.encoder import FLAVOURS, PRECISIONS, build_graph
from export.quantise.schemes import quantise_columns
from export.reference import logits as reference_logits
from tests.support.mixed_batches import mixed
from tests.support.small_checkpoints import FAMILIES, POSITIONS, WORDS, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(write_checkpoint(tmp_path_factory.mktemp("small") / "model", labels=5))


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    rng = np.random.default_rng(3)
    lengths = [1, 2, POSITIONS, *rng.integers(3, POSITIONS, 40)]
    return [rng.integers(0, len(WORDS), length).tolist() for length in lengths]


def load(checkpoint: Checkpoint, precision: str, folder: Path, flavour: str = "fused") -> Artefact:
    model = build_graph(checkpoint.encoder, precision, flavour)
    onnx.checker.check_model(model)
    file = folder / "model.onnx"
    file.write_bytes(model.SerializeToString())
    return Artefact(file, len(checkpoint.labels))


GRAPHS = [(precision, flavour) for precision in PRECISIONS for flavour in FLAVOURS]
BOUNDS = {"fp32": 2e-5, "fp16": 3e-2}


@pytest.mark.parametrize(("precision", "flavour"), GRAPHS)
def test_the_graph_computes_the_reference(
    checkpoint: Checkpoint, rows: list[list[int]], tmp_path: Path, precision: str, flavour: str
) -> None:
    wanted = np.array([reference_logits(checkpoint.encoder, row) for row in rows])
    assert np.abs(wanted).max() > 1  # else the bounds below would say nothing
    found = load(checkpoint, precision, tmp_path, flavour).alone(rows)
    assert np.abs(found - wanted).max() < BOUNDS[precision]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_family_computes_its_reference(
    rows: list[list[int]], tmp_path: Path, family: str, flavour: str
) -> None:
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "m", labels=3, family=family))
    wanted = np.array([reference_logits(checkpoint.encoder, row) for row in rows[:12]])
    artefact = load(checkpoint, "fp32", tmp_path, flavour)
    assert np.abs(artefact.alone(rows[:12]) - wanted).max() < 2e-5
    assert np.abs(mixed(artefact, rows[:12]) - wanted).max() < 2e-5


@pytest.mark.parametrize(("precision", "flavour"), GRAPHS)
@pytest.mark.parametrize("batch", [2, 7, 17, 43])
def test_padding_and_neighbours_do_not_change_an_answer(
    checkpoint: Checkpoint, rows: list[list[int]], tmp_path: Path, precision: str, flavour: str, batch: int
) -> None:
    artefact = load(checkpoint, precision, tmp_path, flavour)
    shift = np.abs(mixed(artefact, rows, [batch]) - artefact.alone(rows)).max()
    # FP16 rounds where FP32 adds in another order.
    assert shift < (2e-2 if precision == "fp16" else 1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_plain_flavour_has_standard_operators_only(checkpoint: Checkpoint, precision: str) -> None:
    model = build_graph(checkpoint.encoder, precision, "plain")
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert {node.domain for node in model.graph.node} == {""}
    onnx.shape_inference.infer_shapes(model, strict_mode=True)


def test_the_plain_fp16_graph_normalises_in_fp32_and_never_leaves_fp16s_range(checkpoint: Checkpoint) -> None:
    model = build_graph(checkpoint.encoder, "fp16", "plain")
    types = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert len(norms) == 1 + 2 * len(checkpoint.encoder.layers)
    assert {types[node.input[0]] for node in norms} == {onnx.TensorProto.FLOAT}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Softmax", "Erf")]
    assert {types[node.output[0]] for node in products} == {onnx.TensorProto.FLOAT16}
    halves = [
        numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16
    ]
    assert max(np.abs(half).max() for half in halves) <= 10_000


@pytest.mark.parametrize(("precision", "flavour"), [("fp32", "plain"), ("fp16", "plain"), ("fp32", "cpu")])
def test_a_row_of_nothing_but_padding_harms_no_other_request(
    checkpoint: Checkpoint, tmp_path: Path, precision: str, flavour: str
) -> None:
    load(checkpoint, precision, tmp_path, flavour)
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.array([[2, 7, 3], [0, 0, 0]])
    mask = np.array([[1, 1, 1], [0, 0, 0]])
    (both,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
    (alone,) = session.run(["logits"], {"input_ids": ids[:1], "attention_mask": mask[:1]})
    assert np.isfinite(both).all()
    np.testing.assert_allclose(both[0], alone[0], atol=2e-2 if precision == "fp16" else 1e-5)


@pytest.mark.parametrize("flavour", ["fused", "plain"])
def test_the_graphs_for_a_gpu_stay_readable_for_the_onnx_runtime_of_triton(
    checkpoint: Checkpoint, flavour: str
) -> None:
    model = build_graph(checkpoint.encoder, "fp16", flavour)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)


def test_the_cpu_graph_drops_the_biases_of_keys_and_values_and_computes_the_same(
    checkpoint: Checkpoint, rows: list[list[int]], tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)

    def biased(linear: Linear) -> Linear:
        return replace(linear, bias=rng.normal(0, 3, linear.bias.shape).astype(np.float32))

    layers = tuple(
        replace(layer, key=biased(layer.key), value=biased(layer.value), query=biased(layer.query))
        for layer in checkpoint.encoder.layers
    )
    changed = replace(checkpoint, weights=replace(checkpoint.encoder, layers=layers))
    wanted = np.array([reference_logits(changed.encoder, row) for row in rows[:12]])
    assert np.abs(wanted - [reference_logits(checkpoint.encoder, row) for row in rows[:12]]).max() > 0.1
    assert np.abs(mixed(load(changed, "fp32", tmp_path, "cpu"), rows[:12]) - wanted).max() < 1e-4
    nodes = [node.op_type for node in build_graph(changed.encoder, "fp32", "cpu").graph.node]
    # Two additions for the two residuals and their biases each, one for the query's bias, one for positions.
    assert nodes.count("Add") == 5 * len(layers) + 1
    assert nodes.count("Attention") == len(layers)


def test_weights_and_nodes_keep_their_names_in_both_flavours(checkpoint: Checkpoint) -> None:
    parts = ("query", "key", "value", "output", "expand", "contract")
    wanted = {f"layer{i}_{part}" for i in range(len(checkpoint.encoder.layers)) for part in parts}
    for flavour in FLAVOURS:
        model = build_graph(checkpoint.encoder, "fp32", flavour)
        constants = {tensor.name for tensor in model.graph.initializer}
        assert wanted <= constants
        assert {node.input[1] for node in model.graph.node if node.op_type == "MatMul"} & constants == wanted
        again = build_graph(checkpoint.encoder, "fp32", flavour)
        assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_weights_too_large_for_one_file_are_refused_before_they_are_copied(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.graph.builder.LARGEST_BYTES", 1000)
    with pytest.raises(
        ExportError, match=r"too large for one ONNX file \(2 GiB\); export a smaller checkpoint\.$"
    ):
        build_graph(checkpoint.encoder, "fp32")


def test_quantised_columns_are_within_half_a_step_and_survive_zeros() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (64, 9)).astype(np.float32)
    weight[:, 4] = 0
    quantised, scale = quantise_columns(weight)
    assert quantised.dtype == np.int8
    assert quantised.min() >= -127
    assert np.abs(quantised * scale - weight).max() <= scale.max() * 0.5001
    assert not quantised[:, 4].any()


def test_the_cpu_flavour_stays_free_of_the_slow_normalisation_after_optimisation(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    # ONNX Runtime has a pass that would put the slow operator back, if it recognised the pattern.
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    model = build_graph(checkpoint.encoder, "fp32", "cpu").SerializeToString()
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("LayerNormalization") == 1 + 2 * len(checkpoint.encoder.layers)
    assert "SkipLayerNormalization" not in kinds
