"""What an export for the target cuda publishes, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest

from export.errors import ExportError
from export.plan import ExportPlan
from export.repository.inventory import read_config, read_inventory, verify_repository
from export.run import run_export
from tests.support.small_checkpoints import LENIENT, write_checkpoint


@pytest.fixture
def plan(tmp_path: Path, no_pictures: None) -> ExportPlan:
    source = write_checkpoint(tmp_path / "mood", labels=3)
    return ExportPlan(source, tmp_path / "models", tmp_path / "artefacts", limits=LENIENT, timing=None)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_target_cuda_publishes_the_fused_graph_and_the_program_that_runs_it(
    plan: ExportPlan, precision: str
) -> None:
    default = None if precision == "fp16" else precision
    asked = dataclasses.replace(
        plan, target="cuda", precision=default, all_precisions=False, group_texts=9, group_tokens=640
    )
    result = run_export(asked)
    assert (result.artefact, result.model.precision, result.model.target) == (precision, precision, "cuda")
    assert list(result.evaluation.measurements) == ["fp32", "fp16"]
    (model,) = read_inventory(plan.repository)
    assert (model.target, model.layout) == ("cuda", "steps")
    assert not model.tokenizer.endswith("_padded")
    graph = onnx.load(model.weights_file(plan.repository))
    assert [each.version for each in graph.opset_import if each.domain == ""] == [17]
    assert {"MultiHeadAttention", "SkipLayerNormalization"} <= {node.op_type for node in graph.graph.node}
    encoder = read_config(plan.repository / model.encoder)
    assert encoder is not None
    groups = {key: encoder.parameters[f"group_{key}"].string_value for key in ("texts", "tokens")}
    assert groups == {"texts": "9", "tokens": "640"}
    assert verify_repository(plan.repository) == []


@pytest.mark.parametrize("option", ["group_texts", "group_tokens"])
@pytest.mark.parametrize("target", ["cpu", "onnxruntime", "tensorrt"])
def test_groups_are_an_option_of_the_target_cuda_alone(tmp_path: Path, target: str, option: str) -> None:
    with pytest.raises(ExportError, match="--group-texts and --group-tokens are for --target cuda"):
        ExportPlan("nowhere", tmp_path / "a", tmp_path / "b", target=target, **{option: 8})  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["cuda", "onnxruntime"])
def test_int8_for_a_gpu_is_refused_in_a_sentence(tmp_path: Path, target: str) -> None:
    with pytest.raises(ExportError, match=f"INT8 for --target {target} would run on the CPU; choose fp16"):
        ExportPlan("nowhere", tmp_path / "a", tmp_path / "b", target=target, precision="int8")
