from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export import triton_models
from export.errors import ExportError
from export.repository import encoder_config, ensemble_config, tokenizer_config, write_model
from export.run import ExportPlan, run_export
from export.spec import ServedModel
from tests.export.small import write_checkpoint

MODEL = ServedModel(
    name="@cf/acme/mood", labels=("a", "b", "c"), max_tokens=64, precision="int8", target="cpu",
    problem_type="single_label_classification", checkpoint="mood", description='says "how"',
    created_at="2026-01-01 00:00:00.000", weights_sha256="0" * 64, tokenizer_sha256="1" * 64,
    model_sha256="2" * 64,
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    write_model(MODEL, tmp_path / "model.onnx", tmp_path / "tokenizer.json", tmp_path / "root")
    return tmp_path / "root"


def parse(folder: Path) -> pb.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())


def test_the_written_configs_parse_back_to_what_was_meant(root: Path) -> None:
    assert parse(root / "cf-acme-mood") == ensemble_config(MODEL)
    assert parse(root / "cf-acme-mood_tokenizer") == tokenizer_config(MODEL)
    assert parse(root / "cf-acme-mood_encoder_int8") == encoder_config(MODEL)


def test_the_ensemble_carries_the_catalogue_entry(root: Path) -> None:
    parameters = parse(root / "cf-acme-mood").parameters
    assert parameters["tritonflare.name"].string_value == "@cf/acme/mood"
    assert json.loads(parameters["tritonflare.labels"].string_value) == ["a", "b", "c"]
    assert parameters["tritonflare.description"].string_value == 'says "how"'
    assert {key.removeprefix("tritonflare.") for key in parameters} == {
        *(field.name for field in dataclasses.fields(ServedModel)),
        "task",
    }


def test_no_config_has_a_queue_policy_a_priority_or_a_timeout(root: Path) -> None:
    for config in map(parse, root.iterdir()):
        assert not config.dynamic_batching.ByteSize()  # present and empty, or an ensemble


def test_every_batching_step_batches_and_the_encoder_takes_unequal_lengths(root: Path) -> None:
    tokenizer, encoder = parse(root / "cf-acme-mood_tokenizer"), parse(root / "cf-acme-mood_encoder_int8")
    assert tokenizer.HasField("dynamic_batching")
    assert encoder.HasField("dynamic_batching")
    assert all(each.allow_ragged_batch for each in encoder.input)


def test_warm_up_samples_exist_and_have_the_size_they_claim(root: Path) -> None:
    encoder = root / "cf-acme-mood_encoder_int8"
    samples = parse(encoder).model_warmup
    assert [s.inputs["input_ids"].dims[0] for s in samples] == [16, 32, 64]  # buckets up to max_tokens
    for sample in samples:
        for value in sample.inputs.values():
            assert (encoder / "warmup" / value.input_data_file).stat().st_size == 8 * value.dims[0]
    assert (
        root / "cf-acme-mood_tokenizer" / "warmup" / "text.bin"
    ).read_bytes() == b"\x14\x00\x00\x00This pizza is great!"


def test_the_model_files_are_the_exporters_own(root: Path) -> None:
    sources = Path(triton_models.__file__).parent
    for step, source in (("tokenizer", "tokenizer.py"), ("encoder_int8", "encoder.py")):
        assert (root / f"cf-acme-mood_{step}" / "1" / "model.py").read_bytes() == (
            sources / source
        ).read_bytes()


@pytest.mark.parametrize("name", ["", "..", "a b", "a/../b", "@cf//x", "/x", "x/", "a\nb", "@"])
def test_a_name_that_could_leave_the_repository_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="cannot be a model name"):
        dataclasses.replace(MODEL, name=name)


@pytest.fixture
def plan(tmp_path: Path) -> ExportPlan:
    source = write_checkpoint(tmp_path / "mood", labels=3)
    return ExportPlan(source, tmp_path / "repository", tmp_path / "artefacts")


def test_an_export_publishes_one_precision_and_keeps_the_artefacts_of_all(plan: ExportPlan) -> None:
    result = run_export(plan)
    assert sorted(p.name for p in plan.repository.iterdir()) == [
        "local-mood", "local-mood_encoder_int8", "local-mood_tokenizer",
    ]  # fmt: skip
    assert sorted(p.parent.parent.name for p in plan.artefacts.rglob("model.onnx")) == [
        "fp16",
        "fp32",
        "int8",
    ]
    assert result.comparisons["fp32"].agreement == 1.0


def test_another_precision_takes_the_place_of_the_first(plan: ExportPlan) -> None:
    run_export(plan)
    run_export(dataclasses.replace(plan, served="fp32"))
    assert sorted(p.name for p in plan.repository.glob("*_encoder_*")) == ["local-mood_encoder_fp32"]


def test_the_same_checkpoint_gives_the_same_bytes(plan: ExportPlan, tmp_path: Path) -> None:
    run_export(plan)
    other = dataclasses.replace(plan, artefacts=tmp_path / "again")
    run_export(other)
    for precision in ("fp32", "fp16", "int8"):
        file = f"local-mood/{precision}/1/model.onnx"
        assert (plan.artefacts / file).read_bytes() == (other.artefacts / file).read_bytes()


def test_a_damaged_checkpoint_leaves_the_published_model_alone(plan: ExportPlan) -> None:
    run_export(plan)
    before = {p: p.read_bytes() for p in plan.repository.rglob("*") if p.is_file()}
    (plan.source / "model.safetensors").write_bytes(b"")
    with pytest.raises(ExportError):
        run_export(plan)
    assert {p: p.read_bytes() for p in plan.repository.rglob("*") if p.is_file()} == before


def test_a_name_that_would_share_the_folders_of_another_is_refused(plan: ExportPlan) -> None:
    run_export(dataclasses.replace(plan, name="@a/b/c"))
    with pytest.raises(ExportError, match="would share folders"):
        run_export(dataclasses.replace(plan, name="@a/b-c"))


def test_a_name_is_refused_before_anything_is_written(plan: ExportPlan) -> None:
    with pytest.raises(ExportError, match="cannot be a model name"):
        run_export(dataclasses.replace(plan, name="../../outside"))
    assert not plan.artefacts.exists()


@pytest.mark.parametrize("where", ["/proc/nowhere/models", "/dev/null/models"])
def test_a_place_that_cannot_be_written_is_one_sentence(plan: ExportPlan, where: str) -> None:
    with pytest.raises(ExportError, match="models cannot be written here"):
        run_export(dataclasses.replace(plan, repository=Path(where)))


@pytest.mark.parametrize(
    "change", [{"labels": ("a", "a")}, {"labels": ("a", "")}, {"problem_type": "regression"}]
)
def test_what_the_gateway_would_not_serve_is_not_published(change: dict[str, object]) -> None:
    with pytest.raises(ExportError):
        dataclasses.replace(MODEL, **change)  # type: ignore[arg-type]
