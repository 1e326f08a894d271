"""Write one served model as three Triton model folders: tokenizer, encoder, ensemble.

Configurations are built as ``ModelConfig`` protobufs and printed as text, never pasted
together. There is deliberately no queue policy, priority or timeout in any of them: any of
these switches Triton's prefetching off and makes requests wait half a second (ARCHITECTURE.md).
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.spec import LENGTH_BUCKETS, MAX_BATCH_SIZE, ServedModel

VERSION = "1"
INSTANCES = 2
_MODELS = Path(__file__).parent / "triton_models"
_WARMUP_TEXT = "This pizza is great!"


def write_model(model: ServedModel, onnx_file: Path, tokenizer_file: Path, root: Path) -> None:
    """Write the model's three folders under ``root``; weights are hard-linked where possible."""
    tokenizer = root / model.tokenizer
    _version_folder(tokenizer, "tokenizer.py")
    # A copy: the source belongs to its owner, who may edit it in place.
    shutil.copyfile(tokenizer_file, tokenizer / VERSION / "tokenizer.json")
    _write_config(tokenizer, tokenizer_config(model))
    _write_warmup(tokenizer, {"text.bin": _byte_string(_WARMUP_TEXT)})

    encoder = root / model.encoder
    _version_folder(encoder, "encoder.py")
    _link(onnx_file, encoder / VERSION / "model.onnx")
    _write_config(encoder, encoder_config(model))
    lengths = warmup_lengths(model)
    # Ids need only lie in the vocabulary; the mask must be ones, or softmax has nothing to weigh.
    _write_warmup(encoder, {f"ones_{length}.bin": np.ones(length, np.int64).tobytes() for length in lengths})

    ensemble = root / model.ensemble
    (ensemble / VERSION).mkdir(parents=True)
    # Triton wants the version folder, and git does not keep an empty one.
    (ensemble / VERSION / ".gitkeep").touch()
    _write_config(ensemble, ensemble_config(model))


def published_name(config_file: Path) -> str:
    """The public name in an ensemble's ``config.pbtxt``; empty if it cannot be read."""
    try:
        config = text_format.Parse(config_file.read_text(encoding="utf-8"), pb.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError):
        return ""
    return str(config.parameters["tritonflare.name"].string_value)


def warmup_lengths(model: ServedModel) -> tuple[int, ...]:
    """The buckets that fit the model, in tokens."""
    return tuple(b for b in LENGTH_BUCKETS if b <= model.max_tokens)


def tokenizer_config(model: ServedModel) -> pb.ModelConfig:
    """TEXT BYTES [1] → input_ids, attention_mask INT64 [S], token_count INT32 [1]."""
    config = _python_config(
        model.tokenizer,
        inputs=[_input("TEXT", pb.TYPE_STRING, [1])],
        outputs=[
            _output("input_ids", pb.TYPE_INT64, [-1]),
            _output("attention_mask", pb.TYPE_INT64, [-1]),
            _output("token_count", pb.TYPE_INT32, [1]),
        ],
        instances=1,
    )
    config.parameters["max_tokens"].string_value = str(model.max_tokens)
    sample = config.model_warmup.add(name="text", batch_size=1, count=1)
    sample.inputs["TEXT"].CopyFrom(
        pb.ModelWarmup.Input(data_type=pb.TYPE_STRING, dims=[1], input_data_file="text.bin")
    )
    return config


def encoder_config(model: ServedModel) -> pb.ModelConfig:
    """input_ids, attention_mask INT64 [S] → logits FP32 [labels]; texts of unequal length may meet."""
    names = ("input_ids", "attention_mask")
    config = _python_config(
        model.encoder,
        inputs=[_input(name, pb.TYPE_INT64, [-1], ragged=True) for name in names],
        outputs=[_output("logits", pb.TYPE_FP32, [len(model.labels)])],
        instances=INSTANCES,
    )
    for length in warmup_lengths(model):
        sample = config.model_warmup.add(name=f"tokens_{length}", batch_size=1, count=1)
        for name in names:
            sample.inputs[name].CopyFrom(
                pb.ModelWarmup.Input(
                    data_type=pb.TYPE_INT64, dims=[length], input_data_file=f"ones_{length}.bin"
                )
            )
    return config


def ensemble_config(model: ServedModel) -> pb.ModelConfig:
    """TEXT BYTES [1] → logits FP32 [labels], token_count INT32 [1]; carries the catalogue entry."""
    config = pb.ModelConfig(
        name=model.ensemble,
        platform="ensemble",
        max_batch_size=MAX_BATCH_SIZE,
        input=[_input("TEXT", pb.TYPE_STRING, [1])],
        output=[
            _output("logits", pb.TYPE_FP32, [len(model.labels)]),
            _output("token_count", pb.TYPE_INT32, [1]),
        ],
    )
    steps = config.ensemble_scheduling.step
    steps.add(
        model_name=model.tokenizer,
        model_version=-1,
        input_map={"TEXT": "TEXT"},
        output_map={name: name for name in ("input_ids", "attention_mask", "token_count")},
    )
    steps.add(
        model_name=model.encoder,
        model_version=-1,
        input_map={name: name for name in ("input_ids", "attention_mask")},
        output_map={"logits": "logits"},
    )
    for key, value in model.parameters().items():
        config.parameters[key].string_value = value
    return config


def _python_config(
    name: str, *, inputs: Sequence[pb.ModelInput], outputs: Sequence[pb.ModelOutput], instances: int
) -> pb.ModelConfig:
    config = pb.ModelConfig(
        name=name, backend="python", max_batch_size=MAX_BATCH_SIZE, input=inputs, output=outputs
    )
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=instances)
    config.dynamic_batching.SetInParent()
    return config


def _input(name: str, kind: int, dims: Sequence[int], *, ragged: bool = False) -> pb.ModelInput:
    return pb.ModelInput(name=name, data_type=kind, dims=dims, allow_ragged_batch=ragged)


def _output(name: str, kind: int, dims: Sequence[int]) -> pb.ModelOutput:
    return pb.ModelOutput(name=name, data_type=kind, dims=dims)


def _write_config(folder: Path, config: pb.ModelConfig) -> None:
    text = text_format.MessageToString(config)
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")


def _version_folder(folder: Path, source: str) -> None:
    (folder / VERSION).mkdir(parents=True)
    shutil.copyfile(_MODELS / source, folder / VERSION / "model.py")


def _write_warmup(folder: Path, files: Mapping[str, bytes]) -> None:
    (folder / "warmup").mkdir()
    for name, content in files.items():
        (folder / "warmup" / name).write_bytes(content)


def _byte_string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
