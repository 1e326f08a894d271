from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export.errors import ExportError
from export.plan import ExportPlan
from export.repository.inventory import read_inventory, verify_repository
from export.run import run_export
from tests.support.layouts import publish_joined
from tests.support.small_checkpoints import LENIENT, write_checkpoint


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    source = write_checkpoint(folder / "mood", labels=3)
    for name, served in (("@x/mood", "int8"), ("@x/mood-fp32", "fp32")):
        run_export(
            ExportPlan(
                source,
                folder / "repository",
                folder / "artefacts",
                precision=served,
                name=name,
                timing=None,
                limits=LENIENT,
            )
        )
    return folder / "repository"


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return shutil.copytree(exported, tmp_path / "repository", symlinks=True)


def test_the_list_shows_what_is_published(repository: Path) -> None:
    one, two = read_inventory(repository)
    assert (one.name, one.precision, one.target, one.version) == ("@x/mood", "int8", "cpu", 1)
    assert (two.name, two.precision, two.encoder) == ("@x/mood-fp32", "fp32", "x-mood-fp32_encoder_fp32")
    assert one.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert one.tokenizer == two.tokenizer
    assert one.weights_sha256 == two.weights_sha256 != one.model_sha256
    assert one.weights_file(repository).stat().st_size < one.size < two.size


@pytest.fixture
def joined(repository: Path) -> Path:
    publish_joined(repository, "@x/mood", repository)
    return repository / "x-mood_joined_int8"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("2/model.onnx", "is not the file that was published."),
        ("2/tokenizer.json", "is not the file that was published."),
        ("2/model.py", "is not this exporter's; export @x/mood again."),
        ("2/text_queue.py", "is not this exporter's; export @x/mood again."),
        ("2/text_step.py", "is not this exporter's; export @x/mood again."),
    ],
)
def test_a_damaged_or_missing_file_of_a_joined_model_is_named(joined: Path, file: str, words: str) -> None:
    assert verify_repository(joined.parent) == []
    replace(joined / file, b"{")
    assert verify_repository(joined.parent) == [f"{joined.name}/{file} {words}"]
    (joined / file).unlink()
    (joined / "warmup" / "text_32.bin").unlink()
    assert verify_repository(joined.parent) == [
        f"{joined.name}/{file} is missing.",
        f"{joined.name}/warmup/text_32.bin is missing.",
    ]


def test_a_repository_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for question in (read_inventory, verify_repository):
        with pytest.raises(ExportError, match="there is no model repository nowhere"):
            question(tmp_path / "nowhere")


def test_nothing_is_wrong_after_an_export(repository: Path) -> None:
    assert verify_repository(repository) == []


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # it may be a hard link
    path.write_bytes(content)


ENCODER = "x-mood_encoder_int8"


@pytest.mark.parametrize(
    ("file", "finding"),
    [
        (f"{ENCODER}/1/model.onnx", f"{ENCODER}/1/model.onnx is not the file that was published."),
        ("TOKENIZER/1/tokenizer.json", "TOKENIZER/1/tokenizer.json is not the file that was published."),
        (f"{ENCODER}/1/model.py", f"{ENCODER}/1/model.py is not this exporter's; export @x/mood again."),
        (
            f"{ENCODER}/1/encoder_threads.py",
            f"{ENCODER}/1/encoder_threads.py is not this exporter's; export @x/mood again.",
        ),
        ("TOKENIZER/1/model.py", "TOKENIZER/1/model.py is not this exporter's; export @x/mood again."),
        (
            "TOKENIZER/1/long_texts.py",
            "TOKENIZER/1/long_texts.py is not this exporter's; export @x/mood again.",
        ),
        (f"{ENCODER}/config.pbtxt", f"{ENCODER}/config.pbtxt cannot be read as a model configuration."),
        ("x-mood/config.pbtxt", "x-mood/config.pbtxt cannot be read as a model configuration."),
        (
            f"{ENCODER}/warmup/ones_32.bin",
            f"{ENCODER}/warmup/ones_32.bin has 1 bytes; its warm-up sample needs 256.",
        ),
    ],
)
def test_a_damaged_file_is_named(repository: Path, file: str, finding: str) -> None:
    tokenizer = read_inventory(repository)[0].tokenizer
    replace(repository / file.replace("TOKENIZER", tokenizer), b"{")
    assert finding.replace("TOKENIZER", tokenizer) in verify_repository(repository)


@pytest.mark.parametrize("beside", [(), ("long_texts.py",), ("pairs.py", "long_texts.py")])
def test_a_model_of_an_older_exporter_is_one_finding_a_step(
    repository: Path, beside: tuple[str, ...]
) -> None:
    """Its steps had other programs, and fewer files beside them."""
    tokenizer = read_inventory(repository)[0].tokenizer
    for step in (ENCODER, tokenizer):
        for file in (repository / step / "1").glob("*.py"):
            file.unlink()
        for name in ("model.py", *beside):
            (repository / step / "1" / name).write_text("# as an older exporter wrote it\n")
    assert verify_repository(repository) == [
        f"{step}/1/model.py is not this exporter's; export {model} again."
        for step, model in ((ENCODER, "@x/mood"), (tokenizer, "@x/mood"), (tokenizer, "@x/mood-fp32"))
    ]


@pytest.mark.parametrize(
    "file",
    [
        f"{ENCODER}/1/model.onnx",
        f"{ENCODER}/1/model.py",
        f"{ENCODER}/1/text_queue.py",
        f"{ENCODER}/warmup/ones_16.bin",
        "TOKENIZER/1/tokenizer.json",
        "TOKENIZER/1/model.py",
        "TOKENIZER/1/text_step.py",
        "TOKENIZER/1/pair_reader.py",
        "TOKENIZER/1/long_texts.py",
        "TOKENIZER/warmup/text.bin",
    ],
)
def test_a_missing_file_is_one_finding_even_when_models_share_it(repository: Path, file: str) -> None:
    file = file.replace("TOKENIZER", read_inventory(repository)[0].tokenizer)
    (repository / file).unlink()
    assert verify_repository(repository) == [f"{file} is missing."]


@pytest.mark.parametrize("folder", [ENCODER, "TOKENIZER"])
def test_a_folder_without_configuration_is_a_finding(repository: Path, folder: str) -> None:
    folder = folder.replace("TOKENIZER", read_inventory(repository)[0].tokenizer)
    (repository / folder / "config.pbtxt").unlink()
    assert f"@x/mood needs {folder}/config.pbtxt, which is missing." in verify_repository(repository)


def test_a_version_that_was_not_published_is_a_finding(repository: Path) -> None:
    (repository / ENCODER / "7").mkdir()
    assert f"{ENCODER} holds version 7, but @x/mood was published as 1." in verify_repository(repository)
