from __future__ import annotations

import dataclasses
import json
import re
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
from export.evaluation.settings import TimingSettings
from export.plan import INT8_CHOICES, PRECISIONS, SCHEMES, ExportPlan
from export.repository.inventory import read_inventory
from export.run import run_export
from export.source import read_source
from export.spec import LAYOUTS, TARGETS
from tests.support.small_checkpoints import LENIENT, write_checkpoint
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
    assert (cli.TARGETS, cli.PRECISIONS, cli.INT8, cli.LAYOUTS) == (
        TARGETS,
        PRECISIONS,
        INT8_CHOICES,
        LAYOUTS,
    )


def test_auto_measures_every_scheme_and_publishes_the_fastest_that_passes(plan: ExportPlan) -> None:
    result = run_export(dataclasses.replace(plan, int8="auto", timing=QUICKLY))
    found = {name: each for name, each in result.evaluation.measurements.items() if name.startswith("int8-")}
    assert set(found) == {f"int8-{scheme}" for scheme in SCHEMES}
    speeds = {name: each.speed.grouped_per_second for name, each in found.items() if each.speed}
    assert result.artefact == max(speeds, key=lambda name: speeds[name])
    served = read_inventory(plan.repository)[0].weights_file(plan.repository)
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
    ("target", "precision"),
    [("cuda", "int8"), ("onnxruntime", "int8"), ("tensorrt", "fp32"), ("abacus", None)],
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

    def missing(*_: object, **__: object) -> None:
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
    assert "use only one of" in ask("--list", "--verify").output
    assert "not in the range" in ask("--min-agreement", "0.985").output


def test_the_commands_on_a_repository_work_in_turn(plan: ExportPlan) -> None:
    run_export(plan)
    run_export(dataclasses.replace(plan, name="@x/other"))
    assert ask("--verify", "--repository", str(plan.repository)).output.startswith("2 published models,")
    first = ask("--remove", "@x/other", "--repository", str(plan.repository))
    assert first.exit_code == 0
    assert "--watch" in first.output
    assert "SIGHUP" in first.output
    # Triton is not started for a repository without models, so this change reaches no server.
    last = ask("--remove", "@local/mood", "--repository", str(plan.repository))
    assert "still serves the last one" in last.output
    assert "--watch" not in last.output


def places(plan: ExportPlan) -> list[str]:
    return [str(plan.source), "--repository", str(plan.repository), "--artefacts", str(plan.artefacts)]


def test_the_command_publishes_the_layout_and_refuses_it_for_a_gpu(plan: ExportPlan) -> None:
    refused = ask(*places(plan), "--layout", "joined", "--target", "onnxruntime")
    assert refused.exit_code == 2
    assert refused.output.startswith("tritonflare export: --layout joined runs the encoder on the CPU")
    assert not plan.repository.exists()
    quick = ["--quick", "--precision", "fp32", "--layout", "joined"]
    assert ask(*places(plan), *quick).exit_code == 0
    assert "  joined  " in ask("--list", "--repository", str(plan.repository)).output
    assert ask(*places(plan), *quick, "--if-changed").output.startswith("unchanged: ")
    assert "option layout" in ask(*places(plan), *quick[:3], "--if-changed").output


STEPS = ["read_source", "Artefact", "verify_fp32", "evaluate", "write_report", "publish_model"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [RuntimeError("\x1b[96mno\x1b[0m memory.\nNext steps:"), IndexError()])
def test_any_error_of_a_library_is_one_sentence(
    plan: ExportPlan, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"export.run.{step}", fail)
    result = ask(*places(plan), "--quick", "--precision", "fp32")
    assert result.exit_code == 2
    said = "RuntimeError: no memory" if isinstance(error, RuntimeError) else "IndexError: IndexError"
    last = result.output.splitlines()[-1]
    assert re.fullmatch(
        rf"tritonflare export: the export stopped while [\w ]+ \({said}\)\. The repository is .*", last
    )
    assert not plan.repository.exists()


def test_only_verbose_shows_where_an_error_came_from(
    plan: ExportPlan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr("export.run.evaluate", fail)
    with caplog.at_level("WARNING"):
        assert "Traceback" not in ask(*places(plan), "--quick").output
    assert "Traceback" not in caplog.text
    with caplog.at_level("INFO"):
        ask(*places(plan), "--quick", "--verbose")
    assert "Traceback" in caplog.text
    assert "no memory" in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied."),
        (ModuleNotFoundError("No module named 'onnx'", name="onnx"), ".venv/bin/pip install -e '.[export]'"),
        (ZeroDivisionError("division by zero"), "(ZeroDivisionError: division by zero)"),
    ],
)
@pytest.mark.parametrize("wish", ["--list", "--verify"])
def test_no_command_on_a_repository_ends_in_a_traceback(
    monkeypatch: pytest.MonkeyPatch, wish: str, error: Exception, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("export.repository.inventory.read_inventory", fail)
    result = ask(wish, "--repository", "nowhere")
    assert result.exit_code == 2
    assert said in result.output
    assert len(result.output.splitlines()) == 1


def test_a_publication_names_the_servers_that_reload_it(plan: ExportPlan) -> None:
    found = ask(*places(plan), "--quick", "--precision", "fp32").output
    assert "a running server must be restarted" not in found
    assert "`tritonflare serve --watch` serves the change by itself" in found
    assert "`tritonflare serve` on SIGHUP" in found
    assert "WARNING" not in found


def test_labels_in_another_order_are_published_with_a_warning_at_the_end_if_that_is_allowed(
    plan: ExportPlan, tmp_path: Path
) -> None:
    answers = run_export(dataclasses.replace(plan, precision="fp32", all_precisions=False)).evaluation
    turned = answers.measurements["fp32"].answers.chosen[:, [1, 2, 0]].argmax(axis=1)
    texts = zip(answers.examples.texts, turned, strict=True)
    file = tmp_path / "eval.jsonl"
    file.write_text("\n".join(json.dumps({"text": text, "label": f"LABEL_{label}"}) for text, label in texts))
    result = ask(*places(plan), "--quick", "--precision", "fp32", "--eval", str(file), "--allow-poor")
    assert result.exit_code == 0
    *_, last = result.output.splitlines()
    assert last == "!" * 80
    assert "WARNING: @local/mood is published, but its answers may be worth nothing." in result.output
    fitting = '"0": "LABEL_2", "1": "LABEL_0", "2": "LABEL_1"'
    for where in (result.output, (plan.artefacts / "local-mood" / "report.md").read_text()):
        assert f"This would fit: {fitting}." in where
        assert "right for 0.00 % of 263 texts" in where
        assert "100.00 %" in where
    warnings = report(plan)["warnings"]
    assert isinstance(warnings, list)
    assert [warning["check"] for warning in warnings] == ["label order", "majority"]


@pytest.fixture
def constant(plan: ExportPlan) -> ExportPlan:
    """A model that gives every text the second label."""
    file = Path(plan.source) / "model.safetensors"
    tensors = load_file(file)
    tensors["classifier.bias"] = np.array([0, 90, 0], np.float32)
    save_file(tensors, file)
    return plan


ONE_ANSWER = "The model answers 'LABEL_1' to 263 of 263 texts (100.00 %): the exporter's own sentences"


def test_a_constant_answer_is_reported_without_labels(constant: ExportPlan) -> None:
    result = ask(*places(constant), "--quick", "--precision", "fp32")
    assert result.exit_code == 0
    assert ONE_ANSWER in result.output
    assert result.output.splitlines()[-1] == "!" * 80


@pytest.mark.parametrize(("copies", "told"), [(1, True), (20, False)])
def test_our_own_sentences_count_only_where_there_are_too_few_labels(
    constant: ExportPlan, tmp_path: Path, copies: int, told: bool
) -> None:
    file = tmp_path / "eval.csv"
    file.write_text("text,label\n" + "fine,1\n" * copies)
    labelled = dataclasses.replace(constant, examples=file, precision="fp32", all_precisions=False)
    found = [doubt.found for doubt in run_export(labelled).doubts]
    assert any(ONE_ANSWER in each for each in found) == told


def test_a_refusal_also_reports_that_the_model_itself_is_wrong(constant: ExportPlan) -> None:
    impossible = {**LENIENT, "fp32": dataclasses.replace(LENIENT["fp32"], neighbours=-1)}
    plan = dataclasses.replace(constant, precision="fp32", all_precisions=False, limits=impossible)
    with pytest.raises(VerificationError, match="WARNING: The model answers 'LABEL_1' to 263"):
        run_export(plan)


def test_a_refusal_names_the_options_that_help(plan: ExportPlan) -> None:
    impossible = dataclasses.replace(LENIENT["int8"], agreement=1.1, p99_shift=-1)
    with pytest.raises(VerificationError) as caught:
        run_export(dataclasses.replace(plan, limits={**LENIENT, "int8": impossible}))
    message = str(caught.value)
    assert "What may help:" in message
    for option in (
        "--precision fp16: it passed",
        "--precision fp32: it passed",
        "--int8 blocks",
        "--int8 auto",
    ):
        assert option in message
    assert "--eval FILE: judges on your own labelled texts, 200 or more." in message
