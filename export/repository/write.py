"""Write one version of a model's folders: its steps and its ensemble; and the kit for a TensorRT plan."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import numpy as np
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import ExportError
from export.repository.configs import (
    as_text,
    encoder_config,
    ensemble_config,
    joined_config,
    tokenizer_config,
)
from export.spec import IN_PYTHON, JOINED, ServedModel, length_buckets, warmup_texts

MODEL_SOURCES = Path(__file__).parents[1] / "triton_models"
_READS_TEXTS = (
    "text_step.py",
    "text_reader.py",
    "pair_reader.py",
    "pairs.py",
    "long_texts.py",
    "windows.py",
)
_RUNS_ENCODER = ("encoder_threads.py", "device.py", "pinned_memory.py", "text_queue.py")
TOKENIZER_SOURCES = {"model.py": "tokenizer.py"} | {name: name for name in _READS_TEXTS}
ENCODER_SOURCES = {"model.py": "encoder.py"} | {name: name for name in _RUNS_ENCODER}
JOINED_SOURCES = {"model.py": "joined.py"} | {name: name for name in (*_READS_TEXTS, *_RUNS_ENCODER)}
"""What is served under which name, and what it is a copy of."""


def write_model(
    model: ServedModel, onnx_file: Path, tokenizer_file: Path, root: Path, tokenizer_version: int
) -> None:
    """All folders of a model, in its layout.

    Args:
        model: what to write; its ``version`` counts for its own folders.
        onnx_file: the encoder.
        tokenizer_file: the checkpoint's ``tokenizer.json``.
        root: the model repository.
        tokenizer_version: for the folder of a tokenizer that models share.
    """
    if model.layout == JOINED:
        write_joined(model, onnx_file, tokenizer_file, root)
    else:
        write_tokenizer(model, tokenizer_file, root, tokenizer_version)
        write_encoder(model, onnx_file, root)
    write_ensemble(model, root)


def write_tokenizer(model: ServedModel, tokenizer_file: Path, root: Path, version: int) -> None:
    """The tokenizer's folder; it counts its own versions, because models share it."""
    folder = root / model.tokenizer
    content = _version_folder(folder, version)
    _copy_sources(TOKENIZER_SOURCES, content)
    # A copy: the source's owner may edit it in place.
    shutil.copyfile(tokenizer_file, content / "tokenizer.json")
    _write_config(folder / "config.pbtxt", tokenizer_config(model))
    _write_warmup(folder, {"text.bin": _warmup_text(warmup_texts(model.max_tokens)["text"])})


def write_encoder(model: ServedModel, onnx_file: Path, root: Path) -> None:
    """The encoder's folder; the weights are hard-linked where possible.

    Raises:
        ExportError: the target is a TensorRT plan, which is built where it is served.
    """
    if model.target == "tensorrt":
        raise ExportError("a TensorRT plan is built on the machine that serves it; publish for onnxruntime.")
    folder = root / model.encoder
    content = _version_folder(folder, model.version)
    if model.target in IN_PYTHON:
        _copy_sources(ENCODER_SOURCES, content)
    _link(onnx_file, content / "model.onnx")
    _write_config(folder / "config.pbtxt", encoder_config(model))
    _write_warmup(folder, _warmup_rows(model))


def write_joined(model: ServedModel, onnx_file: Path, tokenizer_file: Path, root: Path) -> None:
    """The folder of tokenizer and encoder in one step; the weights are hard-linked where possible."""
    folder = root / model.encoder
    content = _version_folder(folder, model.version)
    _copy_sources(JOINED_SOURCES, content)
    shutil.copyfile(tokenizer_file, content / "tokenizer.json")
    _link(onnx_file, content / "model.onnx")
    _write_config(folder / "config.pbtxt", joined_config(model))
    texts = warmup_texts(model.max_tokens)
    _write_warmup(folder, {f"{name}.bin": _warmup_text(text) for name, text in texts.items()})


def write_ensemble(model: ServedModel, root: Path) -> None:
    """The ensemble's folder, with the catalogue entry in its configuration."""
    folder = root / model.ensemble
    # Triton wants the version folder, and neither git nor an object store keeps an empty one.
    (_version_folder(folder, model.version) / ".gitkeep").touch()
    _write_config(folder / "config.pbtxt", ensemble_config(model))


def write_plan_configs(model: ServedModel, folder: Path) -> None:
    """What a script needs to publish a TensorRT plan of the model, besides the ONNX file.

    ``encoder.config.pbtxt`` with ``warmup/`` for the plan's folder, and ``ensemble.config.pbtxt``,
    which sends texts to the plan.

    Args:
        model: the model with target ``tensorrt`` and the version that is published.
        folder: where they go; made if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_config(folder / "encoder.config.pbtxt", encoder_config(model))
    _write_config(folder / "ensemble.config.pbtxt", ensemble_config(model))
    _write_warmup(folder, _warmup_rows(model))


def _version_folder(folder: Path, version: int) -> Path:
    content = folder / str(version)
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir(parents=True)
    return content


def _copy_sources(sources: dict[str, str], content: Path) -> None:
    for name, source in sources.items():
        shutil.copyfile(MODEL_SOURCES / source, content / name)


def _warmup_text(text: str) -> bytes:
    """One element of a BYTES tensor."""
    content = text.encode()
    return struct.pack("<I", len(content)) + content


def _warmup_rows(model: ServedModel) -> dict[str, bytes]:
    # Ids need only lie in the vocabulary, and types in their table, which has two rows; the mask must be
    # ones, or softmax has nothing to weigh.
    return {
        f"ones_{length}.bin": np.ones(length, np.int64).tobytes()
        for length in length_buckets(model.max_tokens)
    }


def _write_config(file: Path, config: pb.ModelConfig) -> None:
    # The present file may be a hard link into the published repository: replace it, never write into it.
    file.unlink(missing_ok=True)
    file.write_text(as_text(config), encoding="utf-8")


def _write_warmup(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder / "warmup", ignore_errors=True)
    (folder / "warmup").mkdir()
    for name, content in files.items():
        (folder / "warmup" / name).write_bytes(content)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
