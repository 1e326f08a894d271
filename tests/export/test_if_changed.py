"""An export that would repeat the last one is skipped; what cannot be compared leads to an export."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer

from export import fingerprint, record, run
from export.errors import CheckpointError, VerificationError
from export.evaluation.host import Processor
from export.evaluation.settings import TimingSettings
from export.plan import ExportPlan
from export.record import RECORD, unchanged_export
from export.repository.publish import publish_model, remove_model
from export.run import run_export
from tests.support.small_checkpoints import LENIENT, write_checkpoint
from tests.support.unchanged import exported, plan_in, reason, replace
from tritonflare import export as cli

COMMIT, NEXT_COMMIT = "0" * 40, "1" * 40
ENCODER = "local-mood_encoder_int8"


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("cpu"), "cpu")


@pytest.fixture
def plan(on_cpu: Path, tmp_path: Path, no_pictures: None) -> ExportPlan:
    """An export that was done, in a copy of its own."""
    shutil.copytree(on_cpu, tmp_path, dirs_exist_ok=True)
    return plan_in(tmp_path)


def test_the_same_export_is_unchanged_wherever_its_files_lie(plan: ExportPlan) -> None:
    found = unchanged_export(plan)
    assert (found.name, found.version, found.warnings) == ("@local/mood", 1, 0)
    # The default of the target, spelled out.
    assert unchanged_export(dataclasses.replace(plan, precision="int8", name="@local/mood")) == found


def change_weights(folder: Path) -> None:
    write_checkpoint(folder, labels=3, seed=1)


def change_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["z"])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (change_weights, "checkpoint file model.safetensors"),
        (change_tokenizer, "checkpoint file tokenizer.json"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{}"), "file tokenizer_config.json"),
        (lambda folder: (folder / "heldout.tsv").write_text("text\tlabel\n"), "file heldout.tsv"),
        (lambda folder: (folder / "tritonflare.json").write_text("{}"), "file tritonflare.json"),
    ],
)
def test_a_changed_file_of_the_checkpoint_is_exported(
    plan: ExportPlan, change: Callable[[Path], object], changed: str
) -> None:
    change(Path(plan.source))
    assert changed in reason(plan)


def test_the_name_on_a_new_card_is_exported(plan: ExportPlan) -> None:
    (Path(plan.source) / "tritonflare.json").write_text('{"name": "@cf/acme/mood"}')
    assert "no published.json" in reason(plan)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"target": "onnxruntime"}, "option precision, option target"),
        ({"precision": "fp32"}, "option precision"),
        ({"layout": "joined"}, "option layout"),
        ({"int8": "blocks"}, "option int8"),
        ({"instances": 2}, "option instances"),
        ({"aliases": ("@cf/a/b",)}, "option aliases"),
        ({"limits": {**LENIENT, "int8": LENIENT["fp32"]}}, "option limits"),
        ({"timing": TimingSettings()}, "option timing, timed on"),
        ({"all_precisions": True}, "option all_precisions"),
        ({"name": "@local/other"}, "no published.json"),
    ],
)
def test_another_option_is_exported(plan: ExportPlan, options: dict[str, object], changed: str) -> None:
    assert changed in reason(dataclasses.replace(plan, **options))  # type: ignore[arg-type]


def test_every_option_is_compared(plan: ExportPlan) -> None:
    compared = {key.removeprefix("option ") for key in unchanged_export(plan).fingerprint}
    apart = {"source", "revision", "examples", "repository", "artefacts", "keep"}
    assert {field.name for field in dataclasses.fields(plan)} - apart <= compared


def test_a_changed_evaluation_file_is_exported(plan: ExportPlan, tmp_path: Path) -> None:
    examples = tmp_path / "reviews.csv"
    examples.write_text("text,label\ngood,LABEL_0\nbad,LABEL_1\n", encoding="utf-8")
    judged = dataclasses.replace(plan, examples=examples)
    assert "evaluation file" in reason(judged)
    run_export(judged)
    assert unchanged_export(judged).warnings == 0
    examples.write_text("text,label\ngood,LABEL_0\nbad,LABEL_2\n", encoding="utf-8")
    assert "evaluation file" in reason(judged)


def test_another_exporter_is_exported_with(
    plan: ExportPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(fingerprint._SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "_SOURCES", sources)
    assert unchanged_export(plan).version == 1
    with (sources / "triton_models" / "encoder.py").open("a") as encoder:
        encoder.write("# another byte\n")
    assert reason(plan) == "changed since the last one: exporter"


@pytest.mark.parametrize("package", ["numpy", "onnx", "onnxruntime", "tokenizers", "protobuf", "torch"])
def test_another_version_of_a_package_is_exported_with(
    plan: ExportPlan, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == package else version(name))
    assert reason(plan) == f"changed since the last one: package {package}"


def test_another_kind_of_processor_is_exported_on(plan: ExportPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "describe_processor", lambda: Processor("Old Xeon", ("avx2",), False))
    assert reason(plan) == "changed since the last one: processor"


@pytest.mark.parametrize("damage", [replace, Path.unlink])
@pytest.mark.parametrize(
    "file",
    [
        f"{ENCODER}/1/model.onnx",
        f"{ENCODER}/1/model.py",
        f"{ENCODER}/1/encoder_threads.py",
        f"{ENCODER}/config.pbtxt",
        f"{ENCODER}/warmup/ones_16.bin",
        "tokenizer_*/1/tokenizer.json",
        "tokenizer_*/1/long_texts.py",
        "tokenizer_*/1/text_reader.py",
        "tokenizer_*/1/windows.py",
        "local-mood/config.pbtxt",
    ],
)
def test_a_damaged_file_is_exported_again(
    plan: ExportPlan, file: str, damage: Callable[[Path], None]
) -> None:
    (path,) = plan.repository.glob(file)
    damage(path)
    said = reason(plan)
    gone = file == "local-mood/config.pbtxt" and damage is Path.unlink
    assert ("is not published" if gone else str(path.relative_to(plan.repository))) in said


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", "model.py", "text_queue.py"])
def test_a_damaged_joined_model_is_exported_again(plan: ExportPlan, file: str) -> None:
    joined = dataclasses.replace(plan, layout="joined")
    run_export(joined)
    assert unchanged_export(joined).version == 2
    path = plan.repository / "local-mood_joined_int8" / "2" / file
    replace(path)
    assert str(path.relative_to(plan.repository)) in reason(joined)
    assert reason(plan).startswith("changed since the last one: option layout")


@pytest.mark.parametrize("folder", [ENCODER, "local-mood", "tokenizer_*"])
def test_what_is_not_the_newest_version_is_exported_again(plan: ExportPlan, folder: str) -> None:
    (path,) = plan.repository.glob(folder)
    (path / "2").mkdir()
    assert "not as the last one left it" in reason(plan)


def test_a_removed_model_is_exported_again(plan: ExportPlan) -> None:
    run_export(dataclasses.replace(plan, name="@local/other"))
    remove_model(plan.repository, "@local/mood")
    assert reason(plan) == f"@local/mood is not published in {plan.repository}"
    run_export(plan)
    assert unchanged_export(plan).version == 1


@pytest.mark.parametrize(
    ("artefacts", "needed"),
    [
        ("artefacts", "changed since the last one: checkpoint file model.safetensors"),
        ("elsewhere", "not as the last one left it: local-mood/1/.gitkeep, local-mood/2/.gitkeep"),
    ],
)
def test_another_checkpoint_under_the_name_is_replaced_again(
    plan: ExportPlan, tmp_path: Path, artefacts: str, needed: str
) -> None:
    other = write_checkpoint(tmp_path / "other" / "mood", labels=3, seed=1)
    run_export(dataclasses.replace(plan, source=other, artefacts=tmp_path / artefacts))
    assert reason(plan).startswith(needed)
    assert run_export(plan).model.version == 3
    assert unchanged_export(plan).version == 3


def test_another_repository_is_exported_to(plan: ExportPlan, tmp_path: Path) -> None:
    assert "is not published" in reason(dataclasses.replace(plan, repository=tmp_path / "new"))


def test_a_neighbour_in_the_repository_changes_nothing(plan: ExportPlan) -> None:
    run_export(dataclasses.replace(plan, name="@local/other"))
    assert unchanged_export(plan).name == "@local/mood"


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"schema": 1}', "schema", "fingerprint"])
def test_without_a_readable_record_it_is_exported(plan: ExportPlan, content: str | None) -> None:
    file = plan.artefacts / "local-mood" / RECORD
    if content is None:
        file.unlink()
    elif content in ("schema", "fingerprint"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {content: 2}))
    else:
        file.write_text(content)
    assert RECORD in reason(plan)


def test_a_refused_export_leaves_the_record_of_what_is_published(plan: ExportPlan) -> None:
    impossible = {name: dataclasses.replace(each, p99_shift=-1) for name, each in LENIENT.items()}
    with pytest.raises(VerificationError):
        run_export(dataclasses.replace(plan, limits=impossible))
    assert unchanged_export(plan).version == 1


def test_a_publication_that_another_one_has_replaced_is_not_recorded(
    plan: ExportPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_checkpoint(tmp_path / "other" / "mood", labels=3, seed=1)
    late = dataclasses.replace(plan, artefacts=tmp_path / "late")

    def overtaken(*arguments: Any) -> object:
        model = publish_model(*arguments)
        monkeypatch.setattr(run, "publish_model", publish_model)
        run_export(dataclasses.replace(plan, source=other))
        return model

    monkeypatch.setattr(run, "publish_model", overtaken)
    run_export(late)
    assert "no published.json" in reason(late)


def test_an_export_that_cannot_be_compared_is_done_and_leaves_no_record(
    plan: ExportPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run, "folder_digests", unreadable)
    monkeypatch.setattr(record, "folder_digests", unreadable)
    assert "Permission denied" in reason(plan)
    new = dataclasses.replace(plan, artefacts=tmp_path / "new")
    assert run_export(new).model.version == 1
    assert not list(new.artefacts.rglob(RECORD))


@pytest.fixture
def from_the_hub(plan: ExportPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExportPlan:
    """An export of a hub id that was done, and a hub that has the same commit."""
    snapshot = tmp_path / "hub" / "models--acme--mood" / "snapshots" / COMMIT
    write_checkpoint(snapshot, labels=3)
    monkeypatch.setattr(run, "resolve_source", lambda *_: snapshot)
    monkeypatch.setattr(record, "hub_commit", lambda *_: COMMIT)
    found = dataclasses.replace(plan, source="acme/mood")
    run_export(found)
    shutil.rmtree(snapshot)  # the hub's cache of a container ends with it
    return found


def test_a_hub_id_is_compared_by_its_commit(
    from_the_hub: ExportPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unchanged_export(from_the_hub).name == "@local/acme/mood"
    monkeypatch.setattr(record, "hub_commit", lambda *_: NEXT_COMMIT)
    assert reason(from_the_hub) == "changed since the last one: commit on the hub"


def test_a_hub_that_does_not_answer_is_no_reason_to_skip(
    from_the_hub: ExportPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "hub_commit", lambda *_: None)
    assert reason(from_the_hub) == "the hub does not answer"

    def gated(*_: object) -> None:
        raise CheckpointError("acme/mood is gated")

    monkeypatch.setattr(record, "hub_commit", gated)
    assert "acme/mood is gated" in reason(from_the_hub)


def test_the_command_skips_in_one_line_and_without_onnx(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "mood", labels=3)
    examples = tmp_path / "one-sided.csv"
    examples.write_text("text,label\n" + "good,LABEL_0\n" * 20, encoding="utf-8")
    options = ["--quick", "--precision=fp32", "--if-changed", f"--eval={examples}", str(source)]
    options += [f"--repository={tmp_path / 'models'}", f"--artefacts={tmp_path / 'artefacts'}"]
    first = CliRunner().invoke(cli.export, options)
    assert first.exit_code == 0, first.output
    assert "Exporting: there is no published.json of an earlier one" in first.output
    code = (
        "import sys\nfrom tritonflare.main import cli\n"
        f"cli(['export', *{options!r}], standalone_mode=False)\n"
        "print({'numpy', 'onnx', 'onnxruntime', 'tokenizers'} & set(sys.modules))"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line, imported = again.stdout.splitlines()
    assert re.sub(r"\d warnings?", "a warning", line) == (
        f"unchanged: @local/mood version 1 is already published in {tmp_path / 'models'}, with a warning in "
        "its report; export without --if-changed to do it again."
    )
    assert imported == "set()"
    assert not again.stderr
    (tmp_path / "models" / "local-mood" / "config.pbtxt").unlink()
    mended = CliRunner().invoke(cli.export, options)
    assert mended.exit_code == 0
    assert "Exporting: @local/mood is not published" in mended.output
    assert "Published @local/mood (fp32, version 1)" in mended.output
