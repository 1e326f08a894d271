"""A copy of a model repository with a second model: the same tokenizer, and an encoder that does nothing."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

NULL_NAME = "@tritonflare/null"
NULL_ENSEMBLE = "tritonflare-null"
NULL_ENCODER = "tritonflare-null_encoder"
# The embedded server compares weights with the SHA-256 that was published, so there have to be some.
_WEIGHTS = b"none"


@dataclass(frozen=True)
class ModelFolders:
    """Triton's names of a published model: the ensemble and its two steps."""

    ensemble: str
    tokenizer: str
    encoder: str


def copy_with_null(repository: Path, model: ModelFolders, folder: Path) -> ModelFolders:
    """Fill ``folder`` with links to one model of ``repository`` and with its null twin; returns the twin.

    Raises:
        OSError: the model is not there, or the folder cannot be written.
        google.protobuf.text_format.ParseError: its configuration is damaged.
    """
    link_model(repository, (model.ensemble, model.tokenizer, model.encoder), folder)
    null = ModelFolders(NULL_ENSEMBLE, model.tokenizer, NULL_ENCODER)
    _write(folder / null.encoder, _encoder(_read(repository / model.encoder)))
    version = folder / null.encoder / "1"
    (version / "model.onnx").write_bytes(_WEIGHTS)
    shutil.copyfile(Path(__file__).with_name("null_encoder.py"), version / "model.py")
    _write(folder / null.ensemble, _ensemble(_read(repository / model.ensemble), model))
    return null


def link_model(repository: Path, names: Sequence[str], folder: Path) -> None:
    """Fill ``folder`` with links to the folders of one model of ``repository``.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).symlink_to((repository / name).resolve())


def _encoder(real: pb.ModelConfig) -> pb.ModelConfig:
    """The same inputs, outputs, instances and batching; nothing to warm up."""
    config = pb.ModelConfig()
    config.CopyFrom(real)
    config.name = NULL_ENCODER
    for field in ("model_warmup", "model_transaction_policy", "parameters"):
        config.ClearField(field)
    return config


def _ensemble(real: pb.ModelConfig, model: ModelFolders) -> pb.ModelConfig:
    """The same catalogue entry under another public name."""
    config = pb.ModelConfig()
    config.CopyFrom(real)
    config.name = NULL_ENSEMBLE
    for step in config.ensemble_scheduling.step:
        if step.model_name == model.encoder:
            step.model_name = NULL_ENCODER
    for key, value in {
        "name": NULL_NAME,
        "description": "Answers a constant, to measure what serving costs",
        "model_sha256": hashlib.sha256(_WEIGHTS).hexdigest(),
        "version": "1",
    }.items():
        config.parameters[f"tritonflare.{key}"].string_value = value
    return config


def _read(folder: Path) -> pb.ModelConfig:
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, pb.ModelConfig())


def _write(folder: Path, config: pb.ModelConfig) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
