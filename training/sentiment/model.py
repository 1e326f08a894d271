"""MiniLM-L6 as an exact DistilBERT with a two-label head."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import DistilBertConfig, DistilBertForSequenceClassification

LABELS = ("NEGATIVE", "POSITIVE")
_LAYER = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def from_minilm(folder: Path) -> DistilBertForSequenceClassification:
    """Rename BERT's layers; fold token-type row 0 into the position embeddings.

    A single sentence always has token type 0, so adding that row to every position gives
    the same hidden states (to rounding) without BERT's third embedding table. The head
    (pre_classifier, classifier) starts random, from torch's current seed.
    """
    config = DistilBertConfig(
        dim=384,
        hidden_dim=1536,
        n_heads=12,
        n_layers=6,
        vocab_size=30522,
        max_position_embeddings=512,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    model = DistilBertForSequenceClassification(config)
    old = load_file(folder / "model.safetensors")
    embeddings = "distilbert.embeddings"
    new = {
        f"{embeddings}.word_embeddings.weight": old["embeddings.word_embeddings.weight"],
        f"{embeddings}.position_embeddings.weight": old["embeddings.position_embeddings.weight"]
        + old["embeddings.token_type_embeddings.weight"][0],
    }
    for kind in ("weight", "bias"):
        new[f"{embeddings}.LayerNorm.{kind}"] = old[f"embeddings.LayerNorm.{kind}"]
        for layer in range(6):
            for bert, distil in _LAYER.items():
                source = f"encoder.layer.{layer}.{bert}.{kind}"
                new[f"distilbert.transformer.layer.{layer}.{distil}.{kind}"] = old[source]
    missing, unexpected = model.load_state_dict(new, strict=False)
    head = {"pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"}
    if unexpected or not set(missing) <= head:
        raise ValueError(f"the MiniLM checkpoint does not fit: {missing=} {unexpected=}")
    return model


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Token ids as INT64 ``input_ids`` and ``attention_mask`` [B, S], padded on the right with 0."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}
