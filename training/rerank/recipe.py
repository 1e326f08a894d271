"""The numbers behind the bundled reranker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the data."""

    seed: int = 20
    layers: int = 4  # the lowest of six
    vocabulary: int = 11_520  # tokens, of 30,522
    sentences: int = 1_000  # queries that are a sentence of a description, beside those that are a synopsis
    definitions: int = 4_000  # queries that ask for a word of WordNet
    hard: int = 4  # wrong texts of a query, drawn from the first ``depth`` that BM25 finds
    depth: int = 30
    others: int = 1  # wrong texts drawn from all
    max_tokens: int = 96  # of a pair in training
    epochs: int = 1
    batch: int = 12  # queries
    learning_rate: float = 2e-4
    layer_decay: float = 0.95
    head_factor: float = 4.0
    weight_decay: float = 0.01
    warmup: float = 0.06
    pointwise: float = 0.5  # weight of the binary cross-entropy, which makes scores comparable
    teacher: float = 0.5  # weight of the divergence from the encoder's cosines
    temperature: float = 0.05  # of those cosines
    ema: float = 0.998  # averaging of weights, one step's decay
