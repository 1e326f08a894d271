from __future__ import annotations

from pathlib import Path

import pytest

from embedded.errors import EmbeddedError
from embedded.repository import check_repository
from export.run import ExportPlan, run_export
from tests.export.small import write_checkpoint


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    source = write_checkpoint(tmp_path / "mood")
    run_export(ExportPlan(source, tmp_path / "repository", tmp_path / "artefacts"))
    return tmp_path / "repository"


def test_an_exported_repository_passes_and_tells_its_models(repository: Path) -> None:
    (model,) = check_repository(repository)
    assert (model.ensemble, model.name) == ("local-mood", "@local/mood")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("local-mood_encoder_int8/1/model.onnx", "model.onnx is not the file that was published"),
        ("local-mood_tokenizer/1/tokenizer.json", "tokenizer.json is not the file that was published"),
        ("local-mood/config.pbtxt", "config.pbtxt is damaged"),
    ],
)
def test_a_damaged_file_is_refused(repository: Path, file: str, message: str) -> None:
    path = repository / file
    content = path.read_bytes()
    path.unlink()  # it may be a hard link
    path.write_bytes(content[:-1] + b"\x01")
    with pytest.raises(EmbeddedError, match=message):
        check_repository(repository)


def test_weights_that_were_never_generated_are_asked_for(repository: Path) -> None:
    (repository / "local-mood_encoder_int8" / "1" / "model.onnx").unlink()
    with pytest.raises(EmbeddedError, match=r"has no model\.onnx yet; run `make export`"):
        check_repository(repository)


def test_an_empty_or_missing_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="holds no exported model"):
        check_repository(tmp_path)
    with pytest.raises(EmbeddedError, match="no model repository"):
        check_repository(tmp_path / "nowhere")
