"""Another version of the bundled model, made in a moment, that answers every text differently."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from google.protobuf import text_format
from onnx import numpy_helper
from tritonclient.grpc import model_config_pb2 as pb

from export.repository.exchange import replace_repository

_ENSEMBLE = "cf-huggingface-distilbert-sst-2-int8"
_ENCODER = f"{_ENSEMBLE}_encoder_int8"


def publish_second_version(repository: Path) -> None:
    """Publish, as the exporter does, other weights with the labels in the other order.

    Scores of one version under the labels of the other would agree with neither.
    """
    replace_repository(repository, _change)


def publish_damaged_version(repository: Path) -> None:
    """Publish weights that are not those that the catalogue entry names."""

    def change(root: Path) -> None:
        file = _weights(root)
        content = file.read_bytes()
        file.unlink()  # it is a hard link to what is published
        file.write_bytes(content[:-1000] + bytes(1000))

    replace_repository(repository, change)


def _weights(root: Path) -> Path:
    return max((root / _ENCODER).glob("[0-9]*"), key=lambda folder: int(folder.name)) / "model.onnx"


def _change(root: Path) -> None:
    old = _weights(root)
    model = onnx.load(old)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "classifier_bias")
    moved = numpy_helper.to_array(bias) + np.array([0.5, 0.0], numpy_helper.to_array(bias).dtype)
    bias.CopyFrom(numpy_helper.from_array(moved, bias.name))
    content = model.SerializeToString()
    version = int(old.parent.name) + 1
    for name in (_ENCODER, _ENSEMBLE):
        shutil.copytree(root / name / str(version - 1), root / name / str(version))
    fresh = root / _ENCODER / str(version) / "model.onnx"
    fresh.unlink()
    fresh.write_bytes(content)
    _describe(root / _ENSEMBLE / "config.pbtxt", version, hashlib.sha256(content).hexdigest())


def _describe(file: Path, version: int, sha256: str) -> None:
    config = text_format.Parse(file.read_text(), pb.ModelConfig())
    parameters = config.parameters
    labels = json.loads(parameters["tritonflare.labels"].string_value)
    parameters["tritonflare.labels"].string_value = json.dumps(labels[::-1])
    parameters["tritonflare.model_sha256"].string_value = sha256
    parameters["tritonflare.version"].string_value = str(version)
    file.unlink()
    file.write_text(text_format.MessageToString(config))
