"""The numbers behind the reranker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the data."""

    seed: int = 20
    layers: int = 4  # the lowest of six
    vocabulary: int = 11_520  # tokens, of 30,522
    synopses: int = 13_000  # queries that are the synopsis of a package; all texts are candidates
    sentences: int = 1_000  # queries that are a sentence of a description
    definitions: int = 4_000  # queries that ask for a word of WordNet
    hard: int = 2  # wrong texts of a query, drawn from the first ``depth`` that BM25 finds
    depth: int = 30
    others: int = 1  # wrong texts drawn from all
    max_tokens: int = 64  # of a pair in training
    epochs: int = 1  # what the plan holds
    steps: int = 640  # the run ends here, before the plan does
    cooldown: int = 340  # steps before its end over which the learning rate falls to zero
    batch: int = 10  # queries
    learning_rate: float = 2e-4
    layer_decay: float = 0.95
    head_factor: float = 4.0
    weight_decay: float = 0.01
    warmup: float = 0.06
    pointwise: float = 0.5  # weight of the binary cross-entropy, which makes scores comparable
    teacher: float = 0.5  # weight of the divergence from the encoder's cosines
    temperature: float = 0.05  # of those cosines
    ema: float = 0.998  # averaging of weights, one step's decay
