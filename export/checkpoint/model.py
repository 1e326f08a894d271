"""What a checkpoint is once it has been read: one shape of model for every family."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import CheckpointError

Array = npt.NDArray[np.float32]


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

    words FP32 [vocabulary, hidden]; positions FP32 [max tokens, hidden], row 0 for the first
    token; head: dense, activation (``relu`` or ``tanh``), classifier [hidden, labels]; types
    FP32 [token types, hidden] for a model of pairs that reads them, else None: token-type row 0 is then
    already added to the positions where the family has one.
    """

    words: Array
    positions: Array
    embedding_norm: Norm
    layers: tuple[Layer, ...]
    dense: Linear
    activation: str
    classifier: Linear
    heads: int
    epsilon: float
    types: Array | None = None

    def without_types(self) -> Encoder:
        """The same for inputs whose token types are all 0."""
        if self.types is None:
            return self
        return replace(self, positions=self.positions + self.types[0], types=None)


@dataclass(frozen=True)
class Checkpoint:
    """A classifier or reranker with the facts of its config and tokenizer.

    Attributes:
        name: how people call it: the hub id, or the folder's name.
        folder: where its files are.
        family: ``model_type`` of the config.
        weights: what a graph is written from; None if the architecture is not one that we
            write ourselves, and only torch can read it (export.route).
        labels: names of the classes, in the order of the logits.
        problem_type: ``single_label_classification`` or ``multi_label_classification``.
        max_tokens: the longest input, special tokens included.
        vocabulary: rows of the word embeddings; every token id is smaller.
        pad_id: the token id that fills short rows of a batch.
        tokenizer_file: a ``tokenizer.json``, the checkpoint's own or made of it and the options beside it.
        weights_sha256: of the weights file; of all shards' digests where there are several.
        tokenizer_sha256: of ``tokenizer_file``.
        torch_model: the model of transformers where ``weights`` is None.
        task: ``classification``, or ``rerank`` for a model that scores pairs of texts.
        token_types: whether the model reads token types; only pairs have any but 0.
    """

    name: str
    folder: Path
    family: str
    weights: Encoder | None
    labels: tuple[str, ...]
    problem_type: str
    max_tokens: int
    vocabulary: int
    pad_id: int
    tokenizer_file: Path
    weights_sha256: str
    tokenizer_sha256: str
    torch_model: Any = None
    task: str = "classification"
    token_types: bool = False

    @property
    def encoder(self) -> Encoder:
        """The weights, for what can only be done with them; raises CheckpointError if there are none."""
        if self.weights is None:
            raise CheckpointError(
                f"{self.name} is a {self.family!r} model that torch exports; it comes as fp32 and fp16 only."
            )
        return self.weights
