"""A copy of a model repository with a second model, whose encoder does nothing.

In the layout ``steps`` it shares the tokenizer's step with the real model. In the layout ``joined`` it has a
step of its own with the same tokenizer.
"""

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
NULL_JOINED = "tritonflare-null_joined"
# The embedded server compares weights with the SHA-256 that was published, so there have to be some.
_WEIGHTS = b"none"


@dataclass(frozen=True)
class ModelFolders:
    """Triton's names of a published model: the ensemble and its steps, of which one may be both."""

    ensemble: str
    tokenizer: str
    encoder: str

    @property
    def joined(self) -> bool:
        """Whether one step tokenizes and encodes."""
        return self.tokenizer == self.encoder


def copy_with_null(repository: Path, model: ModelFolders, folder: Path) -> ModelFolders:
    """Fill ``folder`` with links to one model of ``repository`` and with its null twin; returns the twin.

    Raises:
        OSError: the model is not there, or the folder cannot be written.
        google.protobuf.text_format.ParseError: its configuration is damaged.
    """
    link_model(repository, (model.ensemble, model.tokenizer, model.encoder), folder)
    null = ModelFolders(NULL_ENSEMBLE, model.tokenizer, NULL_ENCODER)
    if model.joined:
        null = ModelFolders(NULL_ENSEMBLE, NULL_JOINED, NULL_JOINED)
    _write(folder / null.encoder, _encoder(_read(repository / model.encoder), null.encoder))
    version = folder / null.encoder / "1"
    if model.joined:
        _copy_reader(repository / model.encoder, version)
    (version / "model.onnx").write_bytes(_WEIGHTS)
    program = "null_joined.py" if model.joined else "null_encoder.py"
    shutil.copyfile(Path(__file__).with_name(program), version / "model.py")
    _write(folder / null.ensemble, _ensemble(_read(repository / model.ensemble), model, null))
    return null


def link_model(repository: Path, names: Sequence[str], folder: Path) -> None:
    """Fill ``folder`` with links to the folders of one model of ``repository``.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(names):
        (folder / name).symlink_to((repository / name).resolve())


def _copy_reader(real: Path, version: Path) -> None:
    """The tokenizer and the programs beside ``model.py``, of the version that Triton serves."""
    served = max(
        (path for path in real.glob("[1-9]*") if path.name.isdecimal()), key=lambda path: int(path.name)
    )
    for file in (*served.glob("*.py"), served / "tokenizer.json"):
        shutil.copyfile(file, version / file.name)


def _encoder(real: pb.ModelConfig, name: str) -> pb.ModelConfig:
    """The same inputs, outputs, parameters, instances and batching; nothing to warm up."""
    config = pb.ModelConfig()
    config.CopyFrom(real)
    config.name = name
    for field in ("model_warmup", "model_transaction_policy"):
        config.ClearField(field)
    return config


def _ensemble(real: pb.ModelConfig, model: ModelFolders, null: ModelFolders) -> pb.ModelConfig:
    """The same catalogue entry under another public name."""
    config = pb.ModelConfig()
    config.CopyFrom(real)
    config.name = NULL_ENSEMBLE
    for step in config.ensemble_scheduling.step:
        if step.model_name == model.encoder:
            step.model_name = null.encoder
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
