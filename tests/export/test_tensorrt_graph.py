from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime import quantization

from export.errors import ExportError, VerificationError
from export.tensorrt.check import check_graph, check_quantised, weight_products
from export.tensorrt.profiles import profiles
from export.tensorrt.quantise import CALIBRATION_TOKENS, SCOPES, calibration, quantise
from export.tensorrt.smooth import smooth
from tests.support.plain_classifier import LABELS, answers, plain_model, texts

FFN = ("layer0_expand", "layer0_contract")


@pytest.mark.parametrize("half", [False, True])
def test_a_plain_graph_passes(half: bool) -> None:
    check_graph(plain_model(half=half), LABELS)


def test_an_operator_that_tensorrt_does_not_know_is_named() -> None:
    model = plain_model()
    model.graph.node[2].domain = "com.microsoft"
    with pytest.raises(VerificationError, match=r"com\.microsoft::Relu"):
        check_graph(model, LABELS)


def test_a_graph_that_mixes_fp16_and_fp32_is_refused() -> None:
    model = plain_model(half=True)
    weight = next(t for t in model.graph.initializer if t.name == "layer0_expand")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name))
    with pytest.raises(VerificationError, match="not strongly typed"):
        check_graph(model, LABELS)


def test_other_inputs_and_outputs_are_refused() -> None:
    model = plain_model()
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT32
    with pytest.raises(VerificationError, match="INT64"):
        check_graph(model, LABELS)
    with pytest.raises(VerificationError, match="3 logits"):
        check_graph(plain_model(), 3)


def test_each_padded_length_has_one_profile_with_the_length_fixed() -> None:
    found = profiles(128)
    assert [p.max for p in found] == [(64, 16), (64, 32), (64, 64), (64, 128)]
    assert all(p.min == (1, p.max[1]) and p.opt[1] == p.max[1] for p in found)


def test_profiles_are_tuned_for_batches_of_about_equal_work() -> None:
    assert [p.opt for p in profiles(512)] == [(64, 16), (32, 32), (16, 64), (8, 128), (4, 256), (2, 512)]
    assert all(p.opt[0] <= p.max[0] for p in profiles(512, max_batch=8))


def test_a_limit_between_two_buckets_is_a_length_of_its_own() -> None:
    assert [p.max[1] for p in profiles(100)] == [16, 32, 64, 100]
    assert [p.max[1] for p in profiles(8)] == [8]


def _pairs(folder: Path, model: onnx.ModelProto, **options: object) -> onnx.ModelProto:
    """QDQ around the feed-forward products, by ONNX Runtime's own tool."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{k: v[i : i + 1] for k, v in calibration(texts()).items()} for i in range(20)]

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[type-arg]
            return self.left.pop() if self.left else None

    onnx.save(model, folder / "plain.onnx")
    extra = {"ActivationSymmetric": True, "WeightSymmetric": True, **options}
    quantization.quantize_static(
        folder / "plain.onnx", folder / "qdq.onnx", Reader(), per_channel=True,
        activation_type=quantization.QuantType.QInt8, weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["MatMul"], nodes_to_quantize=["expand", "contract"],
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"], **extra},
    )  # fmt: skip
    return onnx.load(folder / "qdq.onnx")


def _weights(model: onnx.ModelProto) -> list[str]:
    """The stored weights of the quantised products, whatever the tool calls them."""
    return sorted(t.name for t in model.graph.initializer if t.name.startswith(FFN) and len(t.dims) == 2)


@pytest.fixture
def smoothed() -> onnx.ModelProto:
    model = plain_model()
    products = [n for n in weight_products(model) if n.input[1] in FFN]
    return smooth(model, products, calibration(texts()))


def test_pairs_around_the_chosen_products_pass(tmp_path: Path, smoothed: onnx.ModelProto) -> None:
    model = _pairs(tmp_path, smoothed)
    check_quantised(model, _weights(model))


def test_a_residual_sum_in_int8_is_noticed(tmp_path: Path) -> None:
    # Without smoothing the product and the residual sum share one dequantised tensor.
    model = _pairs(tmp_path, plain_model())
    residual = next(n for n in model.graph.node if n.op_type == "Add")
    assert any("Dequantize" in name for name in residual.input)
    with pytest.raises(VerificationError, match="Add"):
        check_quantised(model, _weights(model))


def test_an_asymmetric_activation_is_noticed(tmp_path: Path, smoothed: onnx.ModelProto) -> None:
    model = _pairs(tmp_path, smoothed, ActivationSymmetric=False)
    with pytest.raises(VerificationError, match=r"activation of .* is not symmetric"):
        check_quantised(model, _weights(model))


def test_a_product_left_out_is_noticed(tmp_path: Path, smoothed: onnx.ModelProto) -> None:
    model = _pairs(tmp_path, smoothed)
    with pytest.raises(VerificationError, match="not quantised: head"):
        check_quantised(model, [*_weights(model), "head"])


def test_smoothing_changes_no_answer_and_flattens_the_channels() -> None:
    model = plain_model()
    products = [n for n in weight_products(model) if n.input[1] in FFN]
    made = smooth(model, products, calibration(texts()))
    rows = texts(40, seed=7)
    np.testing.assert_allclose(answers(made, rows), answers(model, rows), rtol=2e-4, atol=2e-4)

    factor = next(t for t in made.graph.initializer if t.name == "x_smoothing")
    words = numpy_helper.to_array(next(t for t in made.graph.initializer if t.name == "words"))
    peaks = np.abs(words[1:]).max(axis=0)
    after = peaks * numpy_helper.to_array(factor)
    assert peaks.max() / np.median(peaks) > 10
    assert after.max() / np.median(after) < 4


def test_calibration_rows_hold_no_padding() -> None:
    inputs = calibration(texts())
    assert inputs["input_ids"].shape[1] == CALIBRATION_TOKENS
    assert inputs["attention_mask"].all()
    assert (inputs["input_ids"] > 0).all()
    with pytest.raises(ExportError, match="too few"):
        calibration([[1, 2, 3]])
    with pytest.raises(ExportError, match="too few"):
        calibration([])


def test_without_modelopt_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"pip install -e '\.\[tensorrt\]'"):
        quantise(plain_model(), texts(), LABELS, "ffn")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_modelopt_makes_int8_of_the_chosen_products_and_fp16_of_the_rest(scope: str) -> None:
    pytest.importorskip("modelopt", reason="nvidia-modelopt is not installed (extra: tensorrt)")
    model = plain_model()
    made = quantise(model, texts(), LABELS, scope)
    kinds = {t.name: t.data_type for t in made.graph.initializer if t.name.startswith(("words", "layer0_"))}
    assert {kinds["words"], kinds["layer0_expand"]} == {TensorProto.FLOAT16}
    norm = next(n for n in made.graph.node if n.op_type == "LayerNormalization")
    caster = next(n for n in made.graph.node if norm.input[0] in n.output)
    assert (caster.op_type, caster.attribute[0].i) == ("Cast", TensorProto.FLOAT)
    assert sum(n.op_type == "DequantizeLinear" for n in made.graph.node) == 4
    rows = texts(100, seed=9)
    same = answers(made, rows).argmax(1) == answers(model, rows).argmax(1)
    assert same.mean() > 0.95


def test_a_graph_without_the_expected_weights_is_refused() -> None:
    model = plain_model()
    for tensor in model.graph.initializer:
        tensor.name += "_by_another_exporter"
    made_here = {name for node in model.graph.node for name in node.output}
    given = {value.name for value in model.graph.input}
    for node in model.graph.node:
        node.input[:] = [n if n in made_here | given else f"{n}_by_another_exporter" for n in node.input]
    with pytest.raises(ExportError, match="no product"):
        quantise(model, texts(), LABELS)
