"""Small models of transformers with random weights that spread the logits, saved as checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models

VOCABULARY, TOKENS = 200, 512
Rows = list[list[int]]

_BERT = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96,
}  # fmt: skip
_DISTILBERT = {
    "vocab_size": VOCABULARY, "dim": 48, "hidden_dim": 96, "n_layers": 2, "n_heads": 4,
    "max_position_embeddings": TOKENS,
}  # fmt: skip
_ROBERTA = _BERT | {"max_position_embeddings": TOKENS + 2, "layer_norm_eps": 1e-5, "type_vocab_size": 1}
_MODERN = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}

Config = Callable[..., Any]
WRITTEN: dict[str, tuple[Config, dict[str, Any]]] = {
    "distilbert": (transformers.DistilBertConfig, _DISTILBERT),
    "bert": (transformers.BertConfig, _BERT | {"max_position_embeddings": TOKENS}),
    "roberta": (transformers.RobertaConfig, _ROBERTA),
    "xlm-roberta": (transformers.XLMRobertaConfig, _ROBERTA),
}
TRACED: dict[str, tuple[Config, dict[str, Any]]] = {
    "electra": (transformers.ElectraConfig, _BERT | {"embedding_size": 32, "max_position_embeddings": 64}),
    "mpnet": (transformers.MPNetConfig, _BERT | {"max_position_embeddings": 66}),
    "modernbert": (transformers.ModernBertConfig, _BERT | _MODERN | {"max_position_embeddings": 64}),
    "bert with gelu_new": (
        transformers.BertConfig,
        _BERT | {"max_position_embeddings": 64, "hidden_act": "gelu_new"},
    ),
}
# Architectures with tables of 66 positions that count from the padding id, 1, so that 64 are left.
_COUNTING = _BERT | {"max_position_embeddings": 66, "pad_token_id": 1, "type_vocab_size": 1}
COUNTING: dict[str, tuple[Config, dict[str, Any]]] = {
    "ibert": (transformers.IBertConfig, _COUNTING),
    "lilt": (transformers.LiltConfig, _COUNTING | {"max_2d_position_embeddings": 64}),
    "luke": (transformers.LukeConfig, _COUNTING | {"entity_vocab_size": 10, "entity_emb_size": 48}),
    "longformer": (transformers.LongformerConfig, _COUNTING | {"attention_window": [8, 8]}),
    "roberta with gelu_new": (transformers.RobertaConfig, _COUNTING | {"hidden_act": "gelu_new"}),
}
_DEEP = {"vocab_size": VOCABULARY, "d_model": 48, "d_inner": 96, "n_layer": 2, "n_head": 4}
UNLIMITED: dict[str, tuple[Config, dict[str, Any]]] = {"xlnet": (transformers.XLNetConfig, _DEEP)}


def save_model(kind: tuple[Config, dict[str, Any]], folder: Path, labels: int, **settings: Any) -> Any:
    """A checkpoint in ``folder``; returns the model that wrote it, ready to be asked."""
    config, values = kind
    # No class of a family would take the tokenizer of words that is written below.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | settings
    names = {i: f"label {i}" for i in range(labels)}
    torch.manual_seed(labels)
    model = transformers.AutoModelForSequenceClassification.from_config(
        config(**values, id2label=names, label2id={v: k for k, v in names.items()}, **settings)
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name.lower():  # else every norm would be the identity
                weight.add_(torch.randn_like(weight) * 0.2)
            else:
                spread = 1.0 if "embeddings" in name else 1.5 / max(1, weight.shape[-1]) ** 0.5
                weight.copy_(torch.randn_like(weight) * spread)
    model.eval().save_pretrained(folder, safe_serialization=True)
    words = {f"w{i}": i for i in range(VOCABULARY)}
    Tokenizer(models.WordLevel(words, unk_token="w4")).save(str(folder / "tokenizer.json"))
    return model


def random_rows(longest: int, seed: int = 5) -> Rows:
    """Token ids of texts of 1 to ``longest`` tokens; 0 to 3 are left to padding and special tokens."""
    rng = np.random.default_rng(seed)
    lengths = [1, 2, longest, *rng.integers(2, longest, 3), *rng.integers(1, 40, 17)]
    rng.shuffle(lengths)
    return [rng.integers(4, VOCABULARY, length).tolist() for length in lengths]


def torch_logits(model: Any, rows: Rows) -> Any:
    """Logits [N, labels] of every text alone."""
    with torch.no_grad():
        return np.concatenate([model(torch.tensor([row])).logits.numpy() for row in rows])
