from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest
from click.testing import CliRunner

from embedded.errors import EmbeddedError
from embedded.repository import check_repository
from export.plan import ExportPlan
from export.run import run_export
from tests.support.layouts import publish_joined
from tests.support.small_checkpoints import LENIENT, write_checkpoint
from tritonflare.doctor import doctor


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    source = write_checkpoint(tmp_path / "mood")
    run_export(
        ExportPlan(source, tmp_path / "repository", tmp_path / "artefacts", timing=None, limits=LENIENT)
    )
    return tmp_path / "repository"


def test_an_exported_repository_passes_and_reports_its_models(repository: Path) -> None:
    (model,) = check_repository(repository)
    assert (model.ensemble, model.name) == ("local-mood", "@local/mood")
    assert not model.is_reranker


def test_a_model_that_reads_a_query_is_a_reranker(repository: Path) -> None:
    config = repository / "local-mood" / "config.pbtxt"
    text = config.read_text()
    config.unlink()  # it may be a hard link
    config.write_text('input { name: "QUERY" data_type: TYPE_STRING dims: 1 }\n' + text)
    (model,) = check_repository(repository)
    assert model.inputs == ("QUERY", "TEXT")
    assert model.is_reranker
    assert (
        "model repository: @local/mood (reranker)\n"
        in CliRunner().invoke(doctor, ["--repository", str(repository)]).output
    )


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("local-mood_encoder_int8/1/model.onnx", "model.onnx is not the file that was published"),
        ("tokenizer_*/1/tokenizer.json", "tokenizer.json is not the file that was published"),
        ("local-mood_encoder_int8/config.pbtxt", "config.pbtxt is damaged"),
        ("local-mood/config.pbtxt", "config.pbtxt is damaged"),
    ],
)
def test_a_damaged_file_is_refused(repository: Path, file: str, message: str) -> None:
    (path,) = repository.glob(file)
    content = path.read_bytes()
    path.unlink()  # it may be a hard link
    path.write_bytes(content[:-1] + b"\x01")
    with pytest.raises(EmbeddedError, match=message):
        check_repository(repository)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("1/model.onnx", "_joined_int8/model.onnx is not the file that was published"),
        ("1/tokenizer.json", "_joined_int8/tokenizer.json is not the file that was published"),
        ("config.pbtxt", "config.pbtxt is damaged"),
    ],
)
def test_a_damaged_file_of_a_joined_model_is_refused(repository: Path, file: str, message: str) -> None:
    joined = publish_joined(repository, "@local/mood", repository.with_name("joined"))
    (model,) = check_repository(repository.with_name("joined"))
    assert model.steps == (joined.encoder,)
    path = repository.with_name("joined") / joined.encoder / file
    content = path.read_bytes()
    path.unlink()  # it may be a hard link
    path.write_bytes(content[:-1] + b"\x01")
    with pytest.raises(EmbeddedError, match=message):
        check_repository(repository.with_name("joined"))
    path.unlink()
    if file != "config.pbtxt":
        with pytest.raises(EmbeddedError, match=f"has no {path.name} yet"):
            check_repository(repository.with_name("joined"))


def test_large_weights_are_not_held_in_memory_to_be_compared(repository: Path) -> None:
    file = repository / "local-mood_encoder_int8" / "1" / "model.onnx"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    content = bytes(8_000_000)
    file.unlink()  # it may be a hard link
    file.write_bytes(content)
    config = repository / "local-mood" / "config.pbtxt"
    text = config.read_text().replace(before, hashlib.sha256(content).hexdigest())
    config.unlink()
    config.write_text(text)
    tracemalloc.start()
    try:
        check_repository(repository)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(content) / 4


def test_the_highest_version_is_what_counts(repository: Path) -> None:
    encoder = repository / "local-mood_encoder_int8"
    (encoder / "10").mkdir()
    with pytest.raises(EmbeddedError, match=r"has no model\.onnx yet"):
        check_repository(repository)
    (encoder / "1" / "model.onnx").rename(encoder / "10" / "model.onnx")
    (encoder / "9").mkdir()
    assert len(check_repository(repository)) == 1


def test_two_models_may_share_a_tokenizer(repository: Path, tmp_path: Path) -> None:
    plan = ExportPlan(
        tmp_path / "mood", repository, tmp_path / "artefacts", precision="fp32", name="@local/two"
    )
    run_export(plan)
    assert [model.name for model in check_repository(repository)] == ["@local/mood", "@local/two"]
    assert len(list(repository.glob("tokenizer_*"))) == 1


def test_a_model_for_a_gpu_is_refused_with_a_way_out(repository: Path) -> None:
    config = repository / "local-mood_encoder_int8" / "config.pbtxt"
    text = config.read_text()
    config.unlink()
    config.write_text(text.replace('backend: "python"', 'backend: "onnxruntime"'))
    with pytest.raises(EmbeddedError, match="Export it for cpu or cuda, or take it out"):
        check_repository(repository)


def test_weights_that_were_never_generated_are_asked_for(repository: Path) -> None:
    (repository / "local-mood_encoder_int8" / "1" / "model.onnx").unlink()
    with pytest.raises(EmbeddedError, match=r"has no model\.onnx yet; run `tritonflare export`"):
        check_repository(repository)


def test_an_empty_or_missing_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="holds no exported model"):
        check_repository(tmp_path)
    with pytest.raises(EmbeddedError, match="no model repository"):
        check_repository(tmp_path / "nowhere")
