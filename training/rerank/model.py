"""The lowest layers of MiniLM-L6 over a smaller vocabulary, with one output."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

from training.rerank.recipe import Recipe

LABEL = "relevance"
_WORDS = "embeddings.word_embeddings.weight"


def from_minilm(folder: Path, kept: list[int], recipe: Recipe) -> BertForSequenceClassification:
    """A BERT with one logit, made of the encoder's lowest layers and the kept tokens' embeddings.

    Dropping the top layers costs a fine-tuned model least (Sajjad et al., Computer Speech & Language
    2023). The head (classifier) starts random, from torch's current seed.

    Raises:
        ValueError: the checkpoint does not fit.
    """
    published = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = BertConfig(
        vocab_size=len(kept),
        hidden_size=published["hidden_size"],
        intermediate_size=published["intermediate_size"],
        num_attention_heads=published["num_attention_heads"],
        num_hidden_layers=recipe.layers,
        max_position_embeddings=published["max_position_embeddings"],
        type_vocab_size=published["type_vocab_size"],
        layer_norm_eps=published["layer_norm_eps"],
        hidden_dropout_prob=0.0,  # one pass over the data needs none
        attention_probs_dropout_prob=0.0,
        id2label={0: LABEL},
        label2id={LABEL: 0},
    )
    model = BertForSequenceClassification(config)
    old = load_file(folder / "model.safetensors")
    old[_WORDS] = old[_WORDS][torch.tensor(kept)]
    dropped = tuple(f"encoder.layer.{i}." for i in range(recipe.layers, published["num_hidden_layers"]))
    new = {
        f"bert.{name}": value
        for name, value in old.items()
        if not name.startswith(dropped) and name != "embeddings.position_ids"
    }
    missing, unexpected = model.load_state_dict(new, strict=False)
    if unexpected or set(missing) != {"classifier.weight", "classifier.bias"}:
        raise ValueError(f"the MiniLM checkpoint does not fit: {missing=} {unexpected=}")
    return model


def parameters_of(model: torch.nn.Module) -> int:
    """How many weights the model has."""
    return sum(p.numel() for p in model.parameters())
