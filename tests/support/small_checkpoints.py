"""Small random checkpoints of every family in Hugging Face layout, written without torch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from export.evaluation.gate import DEFAULT_LIMITS

_LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_LETTERS]
ROBERTA_WORDS = ["<s>", "<pad>", "</s>", "<unk>", *_LETTERS]
DIM, HIDDEN, HEADS, LAYERS, POSITIONS = 24, 48, 4, 2, 64
FAMILIES = ("distilbert", "bert", "roberta", "xlm-roberta")

# Random weights are near a tie on every other text; what the gate is for has tests of its own.
LENIENT = {
    name: replace(limits, agreement=0.5, p99_shift=0.9, kendall_tau=0.5, top=0.2)
    for name, limits in DEFAULT_LIMITS.items()
}

Tensors = dict[str, npt.NDArray[np.float32]]


def write_checkpoint(
    folder: Path, labels: int = 2, seed: int = 0, family: str = "distilbert", **config: Any
) -> Path:
    """A folder with config.json, model.safetensors (FP32, random) and tokenizer.json.

    Every family takes at most POSITIONS tokens; RoBERTa's table has two rows more, as it counts
    from pad_token_id + 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(family) | {"id2label": {i: f"LABEL_{i}" for i in range(labels)}}
    if "roberta" in family:  # whose own class would need a BPE or Unigram model
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "config.json").write_text(json.dumps(settings | config))
    save_file(random_weights(family, labels, seed), folder / "model.safetensors")
    _tokenizer(family).save(str(folder / "tokenizer.json"))
    return folder


def _settings(family: str) -> dict[str, Any]:
    if family == "distilbert":
        return {
            "model_type": family, "dim": DIM, "hidden_dim": HIDDEN, "n_heads": HEADS, "n_layers": LAYERS,
            "activation": "gelu", "pad_token_id": 0,
        }  # fmt: skip
    offset = 0 if family == "bert" else 2
    return {
        "model_type": family, "hidden_size": DIM, "intermediate_size": HIDDEN, "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS, "hidden_act": "gelu", "layer_norm_eps": 1e-5 if offset else 1e-12,
        "max_position_embeddings": POSITIONS + offset, "type_vocab_size": 1 if offset else 2,
        "vocab_size": len(WORDS), "pad_token_id": 1 if offset else 0,
    }  # fmt: skip


class _Random:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: Tensors = {}

    def table(self, name: str, rows: int) -> None:
        self.tensors[f"{name}.weight"] = self.rng.normal(0, 1, (rows, DIM)).astype(np.float32)

    def linear(self, name: str, out: int, into: int) -> None:
        self.tensors[f"{name}.weight"] = self.rng.normal(0, 1.5 / into**0.5, (out, into)).astype(np.float32)
        self.tensors[f"{name}.bias"] = self.rng.normal(0, 0.2, out).astype(np.float32)

    def norm(self, name: str) -> None:
        self.tensors[f"{name}.weight"] = self.rng.normal(1, 0.2, DIM).astype(np.float32)
        self.tensors[f"{name}.bias"] = self.rng.normal(0, 0.2, DIM).astype(np.float32)


def random_weights(family: str, labels: int, seed: int) -> Tensors:
    """Tensors under the names that transformers gives them."""
    random = _Random(seed)
    if family == "distilbert":
        _distilbert(random)
    else:
        _bert(random, "bert" if family == "bert" else "roberta")
    dense, classifier = {
        "distilbert": ("pre_classifier", "classifier"),
        "bert": ("bert.pooler.dense", "classifier"),
    }.get(family, ("classifier.dense", "classifier.out_proj"))
    random.linear(dense, DIM, DIM)
    random.linear(classifier, labels, DIM)
    return random.tensors


def _distilbert(random: _Random) -> None:
    embeddings = "distilbert.embeddings"
    random.table(f"{embeddings}.word_embeddings", len(WORDS))
    random.table(f"{embeddings}.position_embeddings", POSITIONS)
    random.norm(f"{embeddings}.LayerNorm")
    for i in range(LAYERS):
        layer = f"distilbert.transformer.layer.{i}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            random.linear(f"{layer}.attention.{part}", DIM, DIM)
        random.norm(f"{layer}.sa_layer_norm")
        random.linear(f"{layer}.ffn.lin1", HIDDEN, DIM)
        random.linear(f"{layer}.ffn.lin2", DIM, HIDDEN)
        random.norm(f"{layer}.output_layer_norm")


def _bert(random: _Random, prefix: str) -> None:
    embeddings = f"{prefix}.embeddings"
    roberta = prefix == "roberta"
    random.table(f"{embeddings}.word_embeddings", len(WORDS))
    random.table(f"{embeddings}.position_embeddings", POSITIONS + (2 if roberta else 0))
    random.table(f"{embeddings}.token_type_embeddings", 1 if roberta else 2)
    random.norm(f"{embeddings}.LayerNorm")
    for i in range(LAYERS):
        layer = f"{prefix}.encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            random.linear(f"{layer}.attention.{part}", DIM, DIM)
        random.norm(f"{layer}.attention.output.LayerNorm")
        random.linear(f"{layer}.intermediate.dense", HIDDEN, DIM)
        random.linear(f"{layer}.output.dense", DIM, HIDDEN)
        random.norm(f"{layer}.output.LayerNorm")


def _tokenizer(family: str) -> Tokenizer:
    words = ROBERTA_WORDS if "roberta" in family else WORDS
    unknown = "<unk>" if "roberta" in family else "[UNK]"
    start, end = (
        words.index(word) for word in (("<s>", "</s>") if "roberta" in family else ("[CLS]", "[SEP]"))
    )
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = words[start], words[end]
    typed, doubled = f"{first}:0 $A:0 {last}:0 $B:1 {last}:1", f"{first} $A {last} {last} $B:0 {last}"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=doubled if "roberta" in family else typed,
        special_tokens=[(first, start), (last, end)],
    )
    tokenizer.add_special_tokens(words[:4])
    # Like some published files, it asks for padding and truncation that a server must not obey.
    tokenizer.enable_padding(length=32)
    tokenizer.enable_truncation(16)
    return tokenizer
