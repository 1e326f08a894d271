from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from export.checkpoint import load_checkpoint
from export.graph.builder import GraphBuilder
from export.graph.encoder import build_graph
from export.plan import SCHEMES
from export.quantise.calibrate import METHODS, activation_ranges, smooth
from export.quantise.candidates import build_int8, sensitivity
from export.quantise.rewrite import LOWEST, products, quantisable, quantise
from export.quantise.schemes import (
    FULL_RANGE,
    REDUCED_RANGE,
    Activations,
    Scheme,
    Tokenwise,
    quantise_columns,
)
from tests.support.small_checkpoints import write_checkpoint

ROWS = [[2, *range(4, 4 + length), 3] for length in (1, 2, 5, 9, 16, 30)]
# Products of graphs by torch, and of our own, which say how many rows a matrix has.
MATRIX = (False, True)
Logits = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint"), labels=3)
    return build_graph(load_checkpoint(folder).encoder, "fp32")


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def alone(model: onnx.ModelProto) -> Logits:
    run = session(model)
    outputs = []
    for row in ROWS:
        ids = np.array([row], np.int64)
        outputs.append(run.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])
    return np.concatenate(outputs)


def together(model: onnx.ModelProto) -> Logits:
    width = max(map(len, ROWS))
    ids = np.zeros((len(ROWS), width), np.int64)
    mask = np.zeros_like(ids)
    for line, row in enumerate(ROWS):
        ids[line, : len(row)], mask[line, : len(row)] = row, 1
    found: Logits = session(model).run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]
    return found


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def multiply(
    scheme: Scheme, x: Logits, weight: Logits, *, matrix: bool = True, lowest: float | None = None
) -> Logits:
    """The product ``x @ weight`` as the scheme does it, in a graph of nothing else."""
    graph = GraphBuilder("product", opset=23 if matrix else 17)
    scheme.product(graph, scheme.operand(graph, Activations("x", "rows" * matrix, lowest)), "weight", weight)
    graph.rename_last("logits")
    model = graph.model(weight.shape[1], {})
    del model.graph.input[:]
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, len(weight)])
    )
    found: Logits = session(model).run(["logits"], {"x": x})[0]
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_scheme_rounds_with_what_onnx_runtime_1_23_cannot_run(fp32: onnx.ModelProto, scheme: str) -> None:
    model = build_int8(fp32, scheme, ROWS, saturates=False)
    domains = {node.domain for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert domains == (set() if scheme == "blocks" else {"com.microsoft"})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_stays_near_fp32_and_gives_a_text_one_score_with_any_neighbours(
    fp32: onnx.ModelProto, scheme: str
) -> None:
    model = build_int8(fp32, scheme, ROWS, saturates=False)
    onnx.checker.check_model(model)
    found = alone(model)
    np.testing.assert_allclose(found, alone(fp32), atol=0.6)
    assert np.abs(found - alone(fp32)).max() > 1e-6, "nothing was rounded"
    np.testing.assert_allclose(found, together(model), atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_padding_does_not_move_a_text_by_a_single_bit(tmp_path: Path, seed: int) -> None:
    # One bit of a sum that is exactly halfway between two steps moves a score by 1e-3 in a model this narrow.
    source = write_checkpoint(tmp_path / "m", labels=3, seed=seed)
    run = session(
        build_int8(build_graph(load_checkpoint(source).encoder, "fp32"), "token", ROWS, saturates=False)
    )
    for length in range(2, 24):
        ids = np.array([[2, *range(4, 2 + length), 3]])
        alone = run.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        for padding in (1, 2, 3, 4, 9, 33):
            padded = np.pad(np.repeat(ids, 2, axis=0), ((0, 0), (0, padding)))
            found = run.run(["logits"], {"input_ids": padded, "attention_mask": np.sign(padded)})[0]
            np.testing.assert_array_equal(found, np.repeat(alone, 2, axis=0), err_msg=f"{length} + {padding}")


def test_no_float_weight_and_no_float_word_table_is_left(fp32: onnx.ModelProto) -> None:
    before, after = constants(fp32), constants(build_int8(fp32, "token", ROWS, saturates=False))
    for name in ("words", *(product.weight for product in products(fp32))):
        assert before[name].dtype == np.float32
        assert name not in after
        assert after[f"{name}_int8"].dtype == np.int8
        assert after[f"{name}_int8"].shape == before[name].shape


def test_products_of_one_tensor_share_its_quantised_rows(fp32: onnx.ModelProto) -> None:
    model = build_int8(fp32, "token", ROWS, saturates=False)
    tensors = {product.activations for product in products(fp32)}
    assert len(tensors) < len(products(fp32))
    quantised = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(tensors & set(quantised)) == sorted(tensors)
    assert len(quantised) == len(tensors) + 2, "the zero points of tokens and of texts are made once"


@pytest.mark.parametrize("wide", ["layer1_contract", "words"])
def test_a_weight_that_is_named_stays_fp32(fp32: onnx.ModelProto, wide: str) -> None:
    model = build_int8(fp32, "token", ROWS, saturates=False, wide=[wide])
    assert constants(model)[wide].dtype == np.float32
    assert quantisable(model) == [wide]
    assert {p.key: p.value for p in model.metadata_props}["wide"] == wide


def test_the_source_model_is_not_touched(fp32: onnx.ModelProto) -> None:
    before = fp32.SerializeToString(deterministic=True)
    quantise(fp32, Tokenwise())
    smooth(fp32, ROWS)
    assert fp32.SerializeToString(deterministic=True) == before


def test_the_same_source_gives_the_same_bytes(fp32: onnx.ModelProto) -> None:
    once, again = (build_int8(fp32, "token", ROWS, saturates=False) for _ in range(2))
    assert once.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


@pytest.mark.parametrize("matrix", MATRIX)
@pytest.mark.parametrize("peak", [FULL_RANGE, REDUCED_RANGE])
def test_a_tokenwise_product_is_as_exact_as_its_steps(peak: int, matrix: bool) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(7, 64)) * 10.0 ** rng.integers(-6, 6, (7, 1))).astype(np.float32)
    weight = rng.normal(size=(64, 5)).astype(np.float32)
    # Half a step of each factor, in the worst case all with the same sign.
    x_step = np.abs(x).max(axis=1, keepdims=True) / 127
    w_step = np.abs(weight).max(axis=0) / peak
    bound = 0.5 * x_step * np.abs(weight).sum(axis=0) + 0.5 * w_step * (
        np.abs(x).sum(axis=1, keepdims=True) + 32 * x_step
    )
    assert (np.abs(multiply(Tokenwise(peak), x, weight, matrix=matrix) - x @ weight) <= bound * 1.001).all()


@pytest.mark.parametrize("matrix", MATRIX)
@pytest.mark.parametrize("lowest", [None, -0.5])
def test_a_row_of_zeros_gives_zeros_and_leaves_the_others_alone(matrix: bool, lowest: float | None) -> None:
    x = np.array([[0, 0, 0], [1, 2, 3], [1e-45, 0, 0]], np.float32)
    weight = np.eye(3, dtype=np.float32)
    found = multiply(Tokenwise(), x, weight, matrix=matrix, lowest=lowest)
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1:], x[1:], atol=0.02)


@pytest.mark.parametrize("matrix", MATRIX)
def test_numbers_down_to_the_known_lowest_are_not_cut_off(matrix: bool) -> None:
    x = np.array([[-0.17, 0.01, -0.05], [-0.17, 3, 1]], np.float32)
    weight = np.eye(3, dtype=np.float32)
    found = multiply(Tokenwise(), x, weight, matrix=matrix, lowest=-0.171)
    np.testing.assert_allclose(found[0], x[0], atol=0.171 / 127)
    np.testing.assert_allclose(found[1], x[1], atol=3 / 127)


def test_gelu_is_never_below_what_the_pass_takes_for_its_lowest() -> None:
    x = np.linspace(-10, 10, 200_001)
    tanh = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    exact = x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    for values in (tanh, exact):
        assert -0.171 < values.min() < -0.169
    assert set(LOWEST.values()) == {-0.171}


def test_a_tokenwise_graph_takes_as_few_passes_as_it_can(fp32: onnx.ModelProto) -> None:
    model = build_int8(fp32, "token", ROWS, saturates=False)
    kinds = Counter(node.op_type for node in model.graph.node)
    tensors = len({product.activations for product in products(fp32)})
    gelus = kinds["BiasGelu"]
    assert kinds["Abs"] == tensors - gelus, "GELU's outputs need no pass for their magnitudes"
    assert kinds["Max"] == gelus
    assert kinds["Div"] == 0, "the rounding divides by the row's scale"


def test_shapes_that_another_writer_declares_are_not_relied_on(fp32: onnx.ModelProto) -> None:
    foreign = onnx.ModelProto()
    foreign.CopyFrom(fp32)
    del foreign.metadata_props[:]
    for value in foreign.graph.value_info:
        # Wrong: a matrix has a row for each token or for each text.
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    model = build_int8(foreign, "token", ROWS, saturates=False)
    kinds = Counter(node.op_type for node in model.graph.node)
    tensors = len({product.activations for product in products(foreign)})
    assert len(foreign.graph.value_info) == kinds["Div"] == kinds["QuantizeLinear"] == tensors
    np.testing.assert_allclose(alone(model), alone(fp32), atol=0.6)
    np.testing.assert_allclose(alone(model), together(model), atol=1e-5)


def test_reduced_weights_cannot_saturate_a_sixteen_bit_sum() -> None:
    weight = np.array([[-8.0, 1e-3], [5.0, 2e-3]], np.float32)
    quantised, _ = quantise_columns(weight, REDUCED_RANGE)
    assert np.abs(quantised).max() == REDUCED_RANGE
    assert 2 * 255 * REDUCED_RANGE < 2**15 <= 2 * 255 * FULL_RANGE


def test_a_cpu_that_saturates_gets_reduced_weights(fp32: onnx.ModelProto) -> None:
    for scheme in ("token", "static-minmax"):
        model = build_int8(fp32, scheme, ROWS, saturates=True)
        widest = [np.abs(value).max() for name, value in constants(model).items() if name.startswith("layer")
                  and value.dtype == np.int8]  # fmt: skip
        assert max(widest) == REDUCED_RANGE


def test_smoothing_changes_no_product(fp32: onnx.ModelProto) -> None:
    smoothed = smooth(fp32, ROWS)
    np.testing.assert_allclose(alone(smoothed), alone(fp32), atol=1e-4)
    assert {product.activations for product in products(smoothed)} != {p.activations for p in products(fp32)}


@pytest.mark.parametrize("method", METHODS)
def test_calibrated_peaks_are_positive_and_never_above_the_largest_value(
    fp32: onnx.ModelProto, method: str
) -> None:
    largest = activation_ranges(fp32, ROWS, "minmax")
    found = activation_ranges(fp32, ROWS, method)
    assert found.keys() == {product.activations for product in products(fp32)}
    for name, peak in found.items():
        assert 0 < peak <= largest[name] * 1.001


def test_sensitivity_ranks_first_the_weight_that_rounding_hurts_most(fp32: onnx.ModelProto) -> None:
    spoilt = onnx.ModelProto()
    spoilt.CopyFrom(fp32)
    for tensor in spoilt.graph.initializer:
        # One outlying row coarsens every column's step. What it is multiplied with is always 0: it would
        # magnify the rounding of the weights before it 3000 times, so that those may rank first.
        factor = {"layer0_expand": 3000, "layer0_attention_norm_gamma": 0, "layer0_attention_norm_beta": 0}
        if tensor.name in factor:
            weight = numpy_helper.to_array(tensor).copy()
            weight[0] *= factor[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))

    def build(wide: object) -> onnx.ModelProto:
        return quantise(spoilt, Tokenwise(), wide=wide)  # type: ignore[arg-type]

    def score(model: onnx.ModelProto) -> npt.NDArray[np.float64]:
        return alone(model).astype(np.float64)

    found = sensitivity(spoilt, build, score, lambda done, total: None)
    assert "layer0_expand" in next(iter(found))
    assert sorted(name for group in found for name in group) == sorted(quantisable(spoilt))
