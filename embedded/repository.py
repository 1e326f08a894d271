"""What a model repository on disk holds, read before Triton is asked to serve it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from embedded.errors import EmbeddedError

_REMEDY = "run `make export` (or `tritonflare export`)"


@dataclass(frozen=True)
class Model:
    """An ensemble of the catalogue: Triton's name and the public one."""

    ensemble: str
    name: str


def check_repository(repository: Path) -> list[Model]:
    """The repository's models, after comparing weights and tokenizer with the SHA-256 that was published.

    Triton 2.51's wheel has no checksum agent, so a damaged or half-copied file would be
    served as it is.

    Raises:
        EmbeddedError: no model, a missing file, or a file that is not the published one.
    """
    if not repository.is_dir():
        raise EmbeddedError(f"There is no model repository {repository.name}; {_REMEDY}.")
    try:
        models = _read(repository)
    except OSError as error:
        raise EmbeddedError(f"{repository.name} cannot be read: {error.strerror}.") from error
    if not models:
        raise EmbeddedError(f"{repository.name} holds no exported model; {_REMEDY}.")
    return models


def _read(repository: Path) -> list[Model]:
    models = []
    for folder in sorted(repository.iterdir()):
        file = folder / "config.pbtxt"
        if not file.is_file():
            continue
        try:
            config = text_format.Parse(file.read_text(encoding="utf-8"), pb.ModelConfig())
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise EmbeddedError(f"{folder.name}/config.pbtxt is damaged; {_REMEDY}.") from error
        if "tritonflare.name" in config.parameters:
            _check_files(repository, config)
            models.append(Model(config.name, config.parameters["tritonflare.name"].string_value))
    return models


def _check_files(repository: Path, ensemble: pb.ModelConfig) -> None:
    for step in ensemble.ensemble_scheduling.step:
        part = step.model_name
        name, key = (
            ("tokenizer.json", "tokenizer") if part.endswith("_tokenizer") else ("model.onnx", "model")
        )
        files = sorted((repository / part).glob(f"*/{name}"))
        if not files:
            raise EmbeddedError(f"{part} has no {name} yet; {_REMEDY}.")
        wanted = ensemble.parameters[f"tritonflare.{key}_sha256"].string_value
        for file in files:
            if hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
                raise EmbeddedError(f"{part}/{name} is not the file that was published; {_REMEDY}.")
