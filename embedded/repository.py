"""The models of a repository on disk, read and verified before Triton serves it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from embedded.errors import EmbeddedError, NotExportedError

_REMEDY = "run `tritonflare export`"
_PIECE = 65536
"""Bytes of a file that are read at once."""


@dataclass(frozen=True)
class RepositoryModel:
    """An ensemble: Triton's name, the public name, the models that it consists of, and the texts it reads."""

    ensemble: str
    name: str
    steps: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("TEXT",)
    target: str = "cpu"
    """What it was exported for: ``cpu`` or ``cuda``."""

    @property
    def is_reranker(self) -> bool:
        """Whether it reads pairs of a query and a text."""
        return "QUERY" in self.inputs


def check_repository(repository: Path) -> list[RepositoryModel]:
    """Return the repository's models, after comparing weights and tokenizers with their published SHA-256.

    Triton 2.51's wheel has no checksum agent, so a damaged or half-copied file would be
    served without notice.

    Raises:
        NotExportedError: there is no model.
        EmbeddedError: a file of a model is missing, is not the published one, or cannot be read.
    """
    if not repository.is_dir():
        raise NotExportedError(f"There is no model repository {repository.name}; {_REMEDY}.")
    try:
        models = _read(repository)
    except OSError as error:
        raise EmbeddedError(f"{repository.name} cannot be read: {error.strerror}.") from error
    if not models:
        raise NotExportedError(f"{repository.name} holds no exported model; {_REMEDY}.")
    return models


def _read(repository: Path) -> list[RepositoryModel]:
    models = []
    for folder in sorted(repository.iterdir()):
        if not (folder / "config.pbtxt").is_file():
            continue
        config = read_config(folder)
        if "tritonflare.name" in config.parameters:
            _check_files(repository, config)
            steps = tuple(step.model_name for step in config.ensemble_scheduling.step)
            inputs = tuple(tensor.name for tensor in config.input)
            models.append(
                RepositoryModel(
                    config.name,
                    _parameter(config, "name"),
                    steps,
                    inputs,
                    _parameter(config, "target") or "cpu",
                )
            )
    return models


def read_config(folder: Path) -> pb.ModelConfig:
    """Return the configuration in a model's folder.

    Raises:
        EmbeddedError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise EmbeddedError(f"{folder.name}/config.pbtxt is damaged; {_REMEDY}.") from error


def _parameter(config: pb.ModelConfig, key: str) -> str:
    """A parameter of an ensemble; empty if it has none of that name."""
    name = f"tritonflare.{key}"
    return config.parameters[name].string_value if name in config.parameters else ""


def _check_files(repository: Path, ensemble: pb.ModelConfig) -> None:
    """Compare the files that Triton will serve: those of the highest version of each step."""
    for step in ensemble.ensemble_scheduling.step:
        folder = repository / step.model_name
        _require_python(folder, ensemble)
        numbers = [int(path.name) for path in folder.glob("[1-9]*") if path.name.isdecimal()]
        version = folder / str(max(numbers, default=1))
        # One step may be both.
        if "TEXT" in step.input_map:
            _check_file(version / "tokenizer.json", ensemble, "tokenizer_sha256")
        if "logits" in step.output_map:
            _check_file(version / "model.onnx", ensemble, "model_sha256")


def _check_file(file: Path, ensemble: pb.ModelConfig, key: str) -> None:
    step = file.parents[1].name
    if not file.is_file():
        raise EmbeddedError(f"{step} has no {file.name} yet; {_REMEDY}.")
    if _sha256(file) != _parameter(ensemble, key):
        raise EmbeddedError(f"{step}/{file.name} is not the file that was published; {_REMEDY}.")


def _sha256(file: Path) -> str:
    """Return the SHA-256 of a file, read in small pieces.

    A buffer as large as a model raises the C library's mmap threshold when it is freed. The next one is then
    taken from the thread's arena, which is never trimmed: the process stays larger by the size of a model.
    """
    digest = hashlib.sha256()
    piece = memoryview(bytearray(_PIECE))
    with file.open("rb", buffering=0) as stream:
        while length := stream.readinto(piece):
            digest.update(piece[:length])
    return digest.hexdigest()


def _require_python(folder: Path, ensemble: pb.ModelConfig) -> None:
    config = read_config(folder) if (folder / "config.pbtxt").is_file() else None
    if config is not None and config.backend != "python":
        raise EmbeddedError(
            f"{_parameter(ensemble, 'name')} was exported for {_parameter(ensemble, 'target')}, which needs "
            "the Triton of NVIDIA's image; the embedded one serves the targets cpu and cuda. Export it for "
            "cpu or cuda, or take it out of the repository."
        )
