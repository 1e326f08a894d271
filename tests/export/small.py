"""Small random DistilBERT checkpoints in Hugging Face layout, written without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]
DIM, HIDDEN, HEADS, LAYERS, POSITIONS = 24, 48, 4, 2, 64


def write_checkpoint(folder: Path, labels: int = 2, seed: int = 0, **config: Any) -> Path:
    """A folder with config.json, model.safetensors (FP32, random) and tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"LABEL_{i}" for i in range(labels)]
    settings = {
        "model_type": "distilbert", "dim": DIM, "hidden_dim": HIDDEN, "n_heads": HEADS, "n_layers": LAYERS,
        "activation": "gelu", "id2label": dict(enumerate(names)), "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings | config))
    save_file(_weights(labels, seed), folder / "model.safetensors")
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _weights(labels: int, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    tensors: dict[str, npt.NDArray[np.float32]] = {}

    def linear(name: str, out: int, into: int) -> None:
        tensors[f"{name}.weight"] = rng.normal(0, 1.5 / into**0.5, (out, into)).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.2, out).astype(np.float32)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = rng.normal(1, 0.2, DIM).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.2, DIM).astype(np.float32)

    embeddings = "distilbert.embeddings"
    tensors[f"{embeddings}.word_embeddings.weight"] = rng.normal(0, 1, (len(WORDS), DIM)).astype(np.float32)
    tensors[f"{embeddings}.position_embeddings.weight"] = rng.normal(0, 1, (POSITIONS, DIM)).astype(
        np.float32
    )
    norm(f"{embeddings}.LayerNorm")
    for i in range(LAYERS):
        layer = f"distilbert.transformer.layer.{i}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            linear(f"{layer}.attention.{part}", DIM, DIM)
        norm(f"{layer}.sa_layer_norm")
        linear(f"{layer}.ffn.lin1", HIDDEN, DIM)
        linear(f"{layer}.ffn.lin2", DIM, HIDDEN)
        norm(f"{layer}.output_layer_norm")
    linear("pre_classifier", DIM, DIM)
    linear("classifier", labels, DIM)
    return tensors


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # Like some published files, it asks for padding and truncation that a server must not obey.
    tokenizer.enable_padding(length=32)
    tokenizer.enable_truncation(16)
    return tokenizer
