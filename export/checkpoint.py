"""Read a Hugging Face sequence classifier from a folder, without torch.

Whatever the family, the weights come out under one set of names (`Encoder`), so that the
graph writer and the reference implementation know a single shape of model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from export.errors import CheckpointError

Array = npt.NDArray[np.float32]
Weights = Callable[[str], Array]


@dataclass(frozen=True)
class Linear:
    """``y = x @ weight + bias``; weight FP32 [in, out], bias FP32 [out]."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the last axis; gamma and beta FP32 [hidden]."""

    gamma: Array
    beta: Array


@dataclass(frozen=True)
class Layer:
    """One transformer layer, post-norm: attention → norm → GELU feed-forward → norm."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    attention_norm: Norm
    expand: Linear
    contract: Linear
    output_norm: Norm


@dataclass(frozen=True)
class Encoder:
    """Weights of a text classifier that pools the first token.

    words FP32 [vocabulary, hidden]; positions FP32 [max tokens, hidden], token-type row 0
    already added where the family has one; head: dense, ReLU, classifier [hidden, labels].
    """

    words: Array
    positions: Array
    embedding_norm: Norm
    layers: tuple[Layer, ...]
    dense: Linear
    classifier: Linear
    heads: int
    epsilon: float


@dataclass(frozen=True)
class Checkpoint:
    """An encoder with what its config and tokenizer say about it."""

    folder: Path
    encoder: Encoder
    labels: tuple[str, ...]
    problem_type: str
    weights_sha256: str
    tokenizer_sha256: str

    @property
    def max_tokens(self) -> int:
        """The longest input, special tokens included."""
        return int(self.encoder.positions.shape[0])


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read ``config.json``, ``model.safetensors`` and ``tokenizer.json`` of a folder.

    Raises:
        CheckpointError: a file is missing or damaged, or the architecture is not supported.
    """
    config = _read_config(folder)
    family = config.get("model_type")
    build = _FAMILIES.get(str(family))
    if build is None:
        known = ", ".join(sorted(_FAMILIES))
        raise CheckpointError(f"{folder.name} is a {family!r} model; this version writes {known}.")
    file = _require(folder, "model.safetensors")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{folder.name}/model.safetensors is damaged or cut short: {error}") from error

    def weight(name: str) -> Array:
        if name not in tensors:
            raise CheckpointError(
                f"{folder.name}/model.safetensors has no tensor {name!r}; is it a classifier?"
            )
        return np.ascontiguousarray(tensors[name], dtype=np.float32)

    labels = _labels(config, folder)
    encoder = build(config, weight)
    if encoder.classifier.weight.shape[1] != len(labels):
        wide = encoder.classifier.weight.shape[1]
        raise CheckpointError(f"{folder.name} scores {wide} labels but its config names {len(labels)}.")
    return Checkpoint(
        folder=folder,
        encoder=encoder,
        labels=labels,
        problem_type=config.get("problem_type") or "single_label_classification",
        weights_sha256=sha256(file),
        tokenizer_sha256=sha256(_require(folder, "tokenizer.json")),
    )


def _require(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file() or path.stat().st_size == 0:
        raise CheckpointError(f"{folder.name} has no {name}; give a Hugging Face folder that holds one.")
    return path


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads(_require(folder, "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{folder.name}/config.json is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder.name}/config.json holds no object.")
    return config


def _labels(config: dict[str, Any], folder: Path) -> tuple[str, ...]:
    names = config.get("id2label")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{folder.name}/config.json names no labels (id2label).")
    try:
        return tuple(str(names[str(i)]) for i in range(len(names)))
    except KeyError as error:
        raise CheckpointError(f"{folder.name}/config.json has gaps in id2label: no label {error}.") from error


def _count(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"config.json says {key} is {value!r}; it must be a positive number.")
    return value


def _linear(weight: Weights, name: str) -> Linear:
    return Linear(np.ascontiguousarray(weight(f"{name}.weight").T), weight(f"{name}.bias"))


def _norm(weight: Weights, name: str) -> Norm:
    return Norm(weight(f"{name}.weight"), weight(f"{name}.bias"))


def _distilbert(config: dict[str, Any], weight: Weights) -> Encoder:
    """Names of ``transformers``' DistilBertForSequenceClassification."""
    if config.get("activation", "gelu") != "gelu":
        raise CheckpointError(f"activation {config['activation']!r} is not supported; only gelu is.")
    layers = []
    for i in range(_count(config, "n_layers")):
        at = f"distilbert.transformer.layer.{i}"
        layers.append(
            Layer(
                query=_linear(weight, f"{at}.attention.q_lin"),
                key=_linear(weight, f"{at}.attention.k_lin"),
                value=_linear(weight, f"{at}.attention.v_lin"),
                output=_linear(weight, f"{at}.attention.out_lin"),
                attention_norm=_norm(weight, f"{at}.sa_layer_norm"),
                expand=_linear(weight, f"{at}.ffn.lin1"),
                contract=_linear(weight, f"{at}.ffn.lin2"),
                output_norm=_norm(weight, f"{at}.output_layer_norm"),
            )
        )
    return Encoder(
        words=weight("distilbert.embeddings.word_embeddings.weight"),
        positions=weight("distilbert.embeddings.position_embeddings.weight"),
        embedding_norm=_norm(weight, "distilbert.embeddings.LayerNorm"),
        layers=tuple(layers),
        dense=_linear(weight, "pre_classifier"),
        classifier=_linear(weight, "classifier"),
        heads=_count(config, "n_heads"),
        epsilon=1e-12,
    )


_FAMILIES: dict[str, Callable[[dict[str, Any], Weights], Encoder]] = {"distilbert": _distilbert}
