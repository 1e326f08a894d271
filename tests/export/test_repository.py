from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export import triton_models
from export.errors import ExportError, VerificationError
from export.plan import ExportPlan
from export.repository.configs import encoder_config, ensemble_config, joined_config, tokenizer_config
from export.repository.write import (
    ENCODER_SOURCES,
    TOKENIZER_SOURCES,
    write_encoder,
    write_ensemble,
    write_model,
    write_plan_configs,
    write_tokenizer,
)
from export.run import run_export
from export.spec import ServedModel, length_buckets
from gateway.domain.catalogue import Ensemble, parse_model
from tests.support.small_checkpoints import LENIENT, write_checkpoint

MODEL = ServedModel(
    name="@cf/acme/mood", labels=("a", "b", "c"), max_tokens=64, precision="int8", target="cpu",
    problem_type="single_label_classification", checkpoint="mood", description='says "how"',
    created_at="2026-01-01 00:00:00.000", weights_sha256="0" * 64, tokenizer_sha256="1" * 64,
    model_sha256="2" * 64,
)  # fmt: skip


TOKENIZER = "tokenizer_111111111111_64"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    write_tokenizer(MODEL, tmp_path / "tokenizer.json", tmp_path / "root", 1)
    write_encoder(MODEL, tmp_path / "model.onnx", tmp_path / "root")
    write_ensemble(MODEL, tmp_path / "root")
    return tmp_path / "root"


def parse(folder: Path) -> pb.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())


def test_the_written_configs_parse_back_to_what_was_meant(root: Path) -> None:
    assert parse(root / "cf-acme-mood") == ensemble_config(MODEL)
    assert parse(root / TOKENIZER) == tokenizer_config(MODEL)
    assert parse(root / "cf-acme-mood_encoder_int8") == encoder_config(MODEL)


def test_the_ensemble_carries_the_catalogue_entry(root: Path) -> None:
    parameters = parse(root / "cf-acme-mood").parameters
    assert parameters["tritonflare.name"].string_value == "@cf/acme/mood"
    assert json.loads(parameters["tritonflare.labels"].string_value) == ["a", "b", "c"]
    assert parameters["tritonflare.description"].string_value == 'says "how"'
    fields = {field.name for field in dataclasses.fields(ServedModel)}
    # Written only for models that have any.
    assert {key.removeprefix("tritonflare.") for key in parameters} == fields - {
        "aliases",
        "token_types",
        "special_tokens",
        "group_texts",
        "group_tokens",
        "layout",  # the steps tell
    }


def test_warm_up_samples_exist_and_have_the_size_they_claim(root: Path) -> None:
    encoder = root / "cf-acme-mood_encoder_int8"
    samples = parse(encoder).model_warmup
    assert [s.inputs["input_ids"].dims[0] for s in samples] == [16, 32, 64]  # buckets up to max_tokens
    for sample in samples:
        for value in sample.inputs.values():
            assert (encoder / "warmup" / value.input_data_file).stat().st_size == 8 * value.dims[0]
    assert (root / TOKENIZER / "warmup" / "text.bin").read_bytes() == b"\x14\x00\x00\x00This pizza is great!"


def test_the_model_files_are_the_exporters_own(root: Path) -> None:
    sources = Path(triton_models.__file__).parent
    served = {
        TOKENIZER: TOKENIZER_SOURCES,
        "cf-acme-mood_encoder_int8": ENCODER_SOURCES,
    }
    data = {"model.onnx", "tokenizer.json"}
    for folder, copies in served.items():
        found = {file.name: file.read_bytes() for file in (root / folder / "1").iterdir()}
        assert found.keys() - data == copies.keys()
        assert all(found[name] == (sources / source).read_bytes() for name, source in copies.items())
    assert TOKENIZER_SOURCES["model.py"] == "tokenizer.py"
    assert ENCODER_SOURCES["model.py"] == "encoder.py"


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    model = dataclasses.replace(MODEL, layout="joined")
    write_model(model, tmp_path / "model.onnx", tmp_path / "tokenizer.json", tmp_path / "root", 1)
    return tmp_path / "root"


def test_a_joined_model_is_written_as_its_configurations_say(joined: Path) -> None:
    model = dataclasses.replace(MODEL, layout="joined")
    step = joined / "cf-acme-mood_joined_int8"
    assert {path.name for path in joined.iterdir()} == {"cf-acme-mood", step.name}
    assert parse(step) == joined_config(model)
    ensemble = parse(joined / "cf-acme-mood")
    (only,) = ensemble.ensemble_scheduling.step
    assert (only.model_name, dict(only.input_map)) == (step.name, {"TEXT": "TEXT"})
    assert dict(only.output_map) == {"logits": "logits", "token_count": "token_count"}
    # For callers nothing differs.
    both = ensemble_config(MODEL)
    assert (ensemble.name, ensemble.input, ensemble.output) == (both.name, both.input, both.output)
    assert ensemble.parameters == both.parameters


def test_a_joined_step_holds_the_programs_of_both_and_what_warms_it_up(joined: Path) -> None:
    sources, step = Path(triton_models.__file__).parent, joined / "cf-acme-mood_joined_int8"
    found = {file.name: file.read_bytes() for file in (step / "1").iterdir()}
    assert found.keys() == {"model.onnx", "tokenizer.json", *TOKENIZER_SOURCES, *ENCODER_SOURCES}
    assert found["model.py"] == (sources / "joined.py").read_bytes()
    shared = found.keys() - {"model.py", "model.onnx", "tokenizer.json"}
    assert all(found[name] == (sources / name).read_bytes() for name in shared)
    named = {v.input_data_file for s in parse(step).model_warmup for v in s.inputs.values()}
    assert named == {path.name for path in (step / "warmup").iterdir()}
    # A text for each bucket, in Triton's form: its length, then its bytes.
    for bucket in length_buckets(64):
        content = (step / "warmup" / f"text_{bucket}.bin").read_bytes()
        assert int.from_bytes(content[:4], "little") == len(content) - 4
        assert len(content[4:].split()) == bucket


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, TOKENIZER),
        ({"name": "@x/other", "labels": ("one", "two"), "precision": "fp32"}, TOKENIZER),
        ({"target": "cuda", "precision": "fp16"}, TOKENIZER),
        ({"target": "onnxruntime"}, f"{TOKENIZER}_padded"),
        ({"target": "tensorrt"}, f"{TOKENIZER}_padded"),
        ({"pad_id": 1}, f"{TOKENIZER}_pad1"),
        ({"max_tokens": 32}, "tokenizer_111111111111_32"),
        ({"tokenizer_sha256": "2" * 64}, "tokenizer_222222222222_64"),
    ],
)
def test_tokenizers_have_one_name_exactly_when_they_do_the_same(change: dict[str, Any], name: str) -> None:
    other = dataclasses.replace(MODEL, **change)
    assert other.tokenizer == name
    assert (other.tokenizer == MODEL.tokenizer) == (tokenizer_config(other) == tokenizer_config(MODEL))


@pytest.mark.parametrize(
    ("max_tokens", "buckets"), [(512, (16, 32, 64, 128, 256, 512)), (100, (16, 32, 64, 100)), (8, (8,))]
)
def test_the_last_bucket_holds_the_longest_input(max_tokens: int, buckets: tuple[int, ...]) -> None:
    assert length_buckets(max_tokens) == buckets


def test_a_plan_cannot_be_published_before_it_is_built(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="built on the machine that serves it"):
        write_encoder(dataclasses.replace(MODEL, target="tensorrt"), tmp_path / "model.onnx", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_plan_configs_point_the_ensemble_at_a_plan(tmp_path: Path) -> None:
    plan = dataclasses.replace(MODEL, target="tensorrt", version=7)
    write_plan_configs(MODEL, tmp_path / "kit")
    write_plan_configs(plan, tmp_path / "kit")  # over older ones
    assert {path.name for path in (tmp_path / "kit").iterdir()} == {
        "encoder.config.pbtxt", "ensemble.config.pbtxt", "warmup",
    }  # fmt: skip
    configs = {
        part: text_format.Parse((tmp_path / "kit" / f"{part}.config.pbtxt").read_text(), pb.ModelConfig())
        for part in ("encoder", "ensemble")
    }
    assert configs["encoder"].name == plan.encoder == "cf-acme-mood_encoder_int8_plan"
    assert configs["ensemble"].name == "cf-acme-mood"
    steps = [step.model_name for step in configs["ensemble"].ensemble_scheduling.step]
    assert steps == [plan.tokenizer, plan.encoder]
    assert configs["ensemble"].parameters["tritonflare.version"].string_value == "7"
    needed = {v.input_data_file for s in configs["encoder"].model_warmup for v in s.inputs.values()}
    assert needed == {path.name for path in (tmp_path / "kit" / "warmup").iterdir()}


@pytest.mark.parametrize("name", ["", "..", "a b", "a/../b", "@cf//x", "/x", "x/", "a\nb", "@"])
def test_a_name_that_could_leave_the_repository_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="cannot be a model name"):
        dataclasses.replace(MODEL, name=name)


@pytest.mark.parametrize("name", [TOKENIZER, f"@{TOKENIZER}_padded", f"{TOKENIZER}_pad1_padded"])
def test_a_name_that_only_a_tokenizer_may_have_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="tokenizers are called so; choose another --name"):
        dataclasses.replace(MODEL, name=name)


@pytest.fixture
def plan(tmp_path: Path, no_pictures: None) -> ExportPlan:
    source = write_checkpoint(tmp_path / "mood", labels=3)
    return ExportPlan(source, tmp_path / "repository", tmp_path / "artefacts", timing=None, limits=LENIENT)


def test_an_export_publishes_one_precision_and_keeps_the_artefacts_of_all(plan: ExportPlan) -> None:
    result = run_export(plan)
    assert sorted(p.name for p in plan.repository.iterdir()) == [
        "local-mood", "local-mood_encoder_int8", result.model.tokenizer,
    ]  # fmt: skip
    assert sorted(p.parent.name for p in plan.artefacts.rglob("model.onnx")) == [
        "fp16",
        "fp32",
        "int8-token",
    ]
    assert list(result.evaluation.measurements) == ["fp32", "fp16", "int8-token"]
    assert result.report == plan.artefacts / "local-mood" / "report.md"


def test_another_precision_takes_the_place_of_the_first(plan: ExportPlan) -> None:
    run_export(plan)
    run_export(dataclasses.replace(plan, precision="fp32"))
    assert sorted(p.name for p in plan.repository.glob("*_encoder_*")) == ["local-mood_encoder_fp32"]


def test_an_export_publishes_the_layout_that_it_is_asked_for(plan: ExportPlan) -> None:
    run_export(plan)
    result = run_export(dataclasses.replace(plan, layout="joined"))
    assert (result.model.layout, result.model.version) == ("joined", 2)
    assert sorted(p.name for p in plan.repository.iterdir()) == ["local-mood", "local-mood_joined_int8"]


@pytest.mark.parametrize("target", ["cuda", "onnxruntime", "tensorrt"])
def test_a_joined_layout_for_a_gpu_is_refused_in_one_sentence(plan: ExportPlan, target: str) -> None:
    with pytest.raises(ExportError, match=f"--layout joined runs .* --target {target} on a GPU; leave"):
        dataclasses.replace(plan, target=target, layout="joined")


def test_the_same_checkpoint_gives_the_same_bytes(plan: ExportPlan, tmp_path: Path) -> None:
    run_export(plan)
    other = dataclasses.replace(plan, artefacts=tmp_path / "again")
    run_export(other)
    for artefact in ("fp32", "fp16", "int8-token"):
        file = f"local-mood/{artefact}/model.onnx"
        assert (plan.artefacts / file).read_bytes() == (other.artefacts / file).read_bytes()


def test_a_damaged_checkpoint_leaves_the_published_model_alone(plan: ExportPlan) -> None:
    run_export(plan)
    before = {p: p.read_bytes() for p in plan.repository.rglob("*") if p.is_file()}
    (Path(plan.source) / "model.safetensors").write_bytes(b"")
    with pytest.raises(ExportError):
        run_export(plan)
    assert {p: p.read_bytes() for p in plan.repository.rglob("*") if p.is_file()} == before


def test_a_failed_gate_publishes_nothing_and_leaves_a_report(plan: ExportPlan) -> None:
    run_export(plan)
    before = {p: p.read_bytes() for p in plan.repository.rglob("*") if p.is_file()}
    impossible = {name: dataclasses.replace(each, p99_shift=-1) for name, each in LENIENT.items()}
    with pytest.raises(VerificationError, match="int8-token fails the gate: 99th percentile"):
        run_export(dataclasses.replace(plan, limits=impossible))
    assert {p: p.read_bytes() for p in plan.repository.rglob("*") if p.is_file()} == before
    report = json.loads((plan.artefacts / "local-mood" / "report.json").read_text(encoding="utf-8"))
    assert report["passed"] is False
    assert not list(plan.repository.rglob("report*"))


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
    "change",
    [
        {"labels": ("a", "a")},
        {"labels": ("a", "")},
        {"problem_type": "regression"},
        {"target": "tpu"},
        {"instances": 0},
        {"group_texts": 0},
        {"group_tokens": 0},
    ],
)
def test_what_the_gateway_would_not_serve_is_not_published(change: dict[str, object]) -> None:
    with pytest.raises(ExportError):
        dataclasses.replace(MODEL, **change)  # type: ignore[arg-type]


def test_aliases_travel_to_the_catalogue_of_the_gateway(plan: ExportPlan) -> None:
    aliases = ("@cf/acme/old", "mood")
    run_export(dataclasses.replace(plan, aliases=aliases))
    (folder,) = plan.repository.glob("local-mood")
    config = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig())
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parse_model(Ensemble("local-mood", parameters)).aliases == aliases


@pytest.mark.parametrize("aliases", [("../out",), ("",), ("a", "a"), ("@local/mood",)])
def test_an_alias_that_no_model_could_have_is_refused(plan: ExportPlan, aliases: tuple[str, ...]) -> None:
    with pytest.raises(ExportError, match=r"alias|model name"):
        dataclasses.replace(plan, name="@local/mood", aliases=aliases)
