from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper
from plans.kit import read_kit
from safetensors.numpy import load_file, save_file

from export.checkpoint import load_checkpoint
from export.errors import ExportError, VerificationError
from export.evaluation.timing import TimingSettings
from export.plan import INT8_CHOICES, PRECISIONS, ExportPlan
from export.quantise.candidates import SCHEMES
from export.repository.inventory import read_inventory
from export.run import run_export
from export.source import read_source
from export.spec import TARGETS
from tests.export.small import LENIENT, write_checkpoint
from tritonflare import export as cli

QUICKLY = TimingSettings(rounds=2, seconds=0.02, loads=1)


@pytest.fixture
def plan(tmp_path: Path, no_pictures: None) -> ExportPlan:
    source = write_checkpoint(tmp_path / "mood", labels=3)
    return ExportPlan(source, tmp_path / "models", tmp_path / "artefacts", limits=LENIENT, timing=None)


def report(plan: ExportPlan) -> dict[str, object]:
    found: dict[str, object] = json.loads((plan.artefacts / "local-mood" / "report.json").read_text())
    return found


def test_the_command_offers_what_the_exporter_can_do() -> None:
    assert (cli.TARGETS, cli.PRECISIONS, cli.INT8) == (TARGETS, PRECISIONS, INT8_CHOICES)


def test_auto_measures_every_scheme_and_publishes_the_fastest_that_passes(plan: ExportPlan) -> None:
    result = run_export(dataclasses.replace(plan, int8="auto", timing=QUICKLY))
    found = {name: each for name, each in result.evaluation.measurements.items() if name.startswith("int8-")}
    assert set(found) == {f"int8-{scheme}" for scheme in SCHEMES}
    speeds = {name: each.speed.grouped_per_second for name, each in found.items() if each.speed}
    assert result.artefact == max(speeds, key=lambda name: speeds[name])
    served = read_inventory(plan.repository)[0].served_file(plan.repository, "local-mood_encoder_int8")
    assert (
        served.read_bytes() == (plan.artefacts / "local-mood" / result.artefact / "model.onnx").read_bytes()
    )


def test_auto_cannot_do_without_timing(plan: ExportPlan) -> None:
    with pytest.raises(ExportError, match="chooses by speed"):
        dataclasses.replace(plan, int8="auto")


def test_a_scheme_that_fails_is_in_the_report_and_not_what_is_published(plan: ExportPlan) -> None:
    # No INT8 is bit-identical to FP32, so only FP16 and FP32 can pass this.
    strict = dataclasses.replace(LENIENT["int8"], p99_shift=0.0)
    chosen = run_export(dataclasses.replace(plan, precision="fp32", limits={**LENIENT, "int8": strict}))
    assert chosen.artefact == "fp32"
    document = report(plan)
    assert document["passed"] is True
    gate = document["gate"]
    assert isinstance(gate, list)
    assert [each["artefact"] for each in gate if not each["passed"]] == ["int8-token"]


def test_weights_that_cost_agreement_stay_fp32_until_the_gate_passes(plan: ExportPlan) -> None:
    file = Path(plan.source) / "model.safetensors"
    tensors = load_file(file)
    name = "distilbert.transformer.layer.0.ffn.lin1.weight"
    # One outlying input row a column: rounding to its scale leaves nothing of the others.
    tensors[name][:, 0] *= 1e3
    tensors["distilbert.transformer.layer.0.sa_layer_norm.weight"][0] = 0
    tensors["distilbert.transformer.layer.0.sa_layer_norm.bias"][0] = 0
    save_file(tensors, file)
    without = dataclasses.replace(LENIENT["int8"], agreement=0.9)
    result = run_export(dataclasses.replace(plan, limits={**LENIENT, "int8": without}))
    assert result.artefact == "int8-token-wide"
    model = onnx.load(plan.artefacts / "local-mood" / result.artefact / "model.onnx")
    wide = {p.key: p.value for p in model.metadata_props}["wide"].split()
    assert "layer0_expand" in wide
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert all(weights[each].dtype == np.float32 for each in wide)
    document = report(plan)
    assert document["chosen"] == "int8-token-wide"


def test_a_model_that_nothing_saves_is_refused(plan: ExportPlan) -> None:
    impossible = dataclasses.replace(LENIENT["int8"], p99_shift=-1)
    with pytest.raises(VerificationError, match="int8-token fails the gate"):
        run_export(dataclasses.replace(plan, limits={**LENIENT, "int8": impossible}))
    assert not plan.repository.exists()


def test_quick_builds_only_what_is_served_and_fp32(plan: ExportPlan) -> None:
    result = run_export(dataclasses.replace(plan, all_precisions=False))
    assert list(result.evaluation.measurements) == ["fp32", "int8-token"]


def test_a_gpu_target_publishes_fp16_for_tritons_own_backend(plan: ExportPlan) -> None:
    result = run_export(dataclasses.replace(plan, target="onnxruntime"))
    assert (result.artefact, result.model.precision, result.model.target) == ("fp16", "fp16", "onnxruntime")
    (model,) = read_inventory(plan.repository)
    assert model.tokenizer.endswith("_padded")
    assert "int8-token" not in result.evaluation.measurements


def test_a_tensorrt_export_publishes_the_fallback_and_a_kit_that_the_builder_reads(plan: ExportPlan) -> None:
    result = run_export(dataclasses.replace(plan, target="tensorrt"))
    assert (result.artefact, result.model.target) == ("fp16", "onnxruntime")
    assert result.kit is not None
    kit = read_kit(result.kit)
    assert [candidate.precision for candidate in kit.candidates] == ["fp16"]
    published = (plan.repository / "local-mood" / "config.pbtxt").read_text()
    assert (result.kit / "fallback.config.pbtxt").read_text() == published
    encoder = (result.kit / "fp16" / "encoder.config.pbtxt").read_text()
    assert 'name: "local-mood_encoder_fp16_plan"' in encoder
    assert 'platform: "tensorrt_plan"' in encoder


@pytest.mark.parametrize(
    ("target", "precision"), [("onnxruntime", "int8"), ("tensorrt", "fp32"), ("abacus", None)]
)
def test_what_cannot_be_served_is_refused_before_anything_is_read(
    tmp_path: Path, target: str, precision: str | None
) -> None:
    with pytest.raises(ExportError):
        ExportPlan("nowhere", tmp_path, tmp_path, target=target, precision=precision)


@pytest.mark.parametrize("card", ["[]", '{"name": 3}', "{", "[" * 100_000, '{"description": "x\\ud800"}'])
def test_a_card_of_another_shape_is_one_sentence(plan: ExportPlan, card: str) -> None:
    (Path(plan.source) / "tritonflare.json").write_text(card)
    with pytest.raises(ExportError, match=r"tritonflare\.json"):
        run_export(plan)


@pytest.mark.parametrize("folder", ["Mood Größe", "_mood"])
def test_a_folder_that_makes_no_name_asks_for_one(plan: ExportPlan, folder: str) -> None:
    source = Path(plan.source).rename(Path(plan.source).with_name(folder))
    nameless = dataclasses.replace(plan, source=source)
    with pytest.raises(ExportError, match=f"'@local/{folder}' cannot be a model name; .* --name sets it"):
        run_export(nameless)
    assert read_source(dataclasses.replace(nameless, name="mood"), plan.artefacts).name == "mood"


def test_a_multi_label_model_keeps_its_problem_type(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "topics", labels=4, problem_type="multi_label_classification")
    assert load_checkpoint(source).problem_type == "multi_label_classification"
    plan = ExportPlan(source, tmp_path / "models", tmp_path / "artefacts", limits=LENIENT, timing=None)
    assert run_export(plan).model.problem_type == "multi_label_classification"
    config = (tmp_path / "models" / "local-topics" / "config.pbtxt").read_text()
    assert "multi_label_classification" in config


def test_a_plan_that_cannot_be_made_leaves_the_published_model_alone(
    plan: ExportPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_export(plan)
    before = {p: p.read_bytes() for p in plan.repository.rglob("*") if p.is_file()}

    def missing(*_: object) -> None:
        raise ExportError("INT8 for TensorRT needs nvidia-modelopt")

    monkeypatch.setattr("export.tensorrt.export.quantise", missing)
    with pytest.raises(ExportError, match="modelopt"):
        run_export(dataclasses.replace(plan, target="tensorrt", precision="int8"))
    assert {p: p.read_bytes() for p in plan.repository.rglob("*") if p.is_file()} == before


def test_a_handful_of_texts_does_not_switch_the_gate_off(plan: ExportPlan, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("text,label\nThis pizza is great!,LABEL_0\n", encoding="utf-8")
    impossible = dataclasses.replace(LENIENT["int8"], accuracy_drop=100, p99_shift=-1)
    with pytest.raises(VerificationError, match="on the exporter's own sentences"):
        run_export(dataclasses.replace(plan, examples=few, limits={**LENIENT, "int8": impossible}))
    assert report(plan)["passed"] is False
    assert not plan.repository.exists()


@pytest.mark.parametrize(("repository", "artefacts"), [("x", "x"), ("x", "x/cache"), ("x/models", "x")])
def test_what_triton_reads_and_what_is_kept_must_not_mix(
    tmp_path: Path, repository: str, artefacts: str
) -> None:
    with pytest.raises(ExportError, match="must not lie in one another"):
        ExportPlan("anything", tmp_path / repository, tmp_path / artefacts)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(cli.export, list(arguments))


def test_the_command_does_not_mistake_one_wish_for_another(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")
    assert ask("--remove", "", "--repository", nowhere).exit_code == 2
    assert not Path(nowhere).exists()
    assert "one at a time" in ask("--list", "--verify").output
    assert "not in the range" in ask("--min-agreement", "0.985").output


def test_the_list_is_whole_where_nobody_looks_at_a_table(plan: ExportPlan) -> None:
    long = "@cf/somebody/with-a-name-that-would-never-fit-into-a-narrow-table"
    run_export(dataclasses.replace(plan, name=long))
    found = ask("--list", "--repository", str(plan.repository))
    head, line = (row.split("\t") for row in found.output.splitlines())
    assert dict(zip(head, line, strict=True))["name"] == long
    assert ask("--verify", "--repository", str(plan.repository)).output.startswith("1 published model,")
    assert ask("--remove", long, "--repository", str(plan.repository)).exit_code == 0
