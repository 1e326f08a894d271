"""Random rerankers of transformers with trained tokenizers of their classes, and pairs to ask them about."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from export.samples import own_texts
from tests.support.random_models import TRACED, WRITTEN, save_model

VOCABULARY = 400
TOKENS = 512
_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_DEBERTA = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96, "max_position_embeddings": TOKENS, "type_vocab_size": 2,
    "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16, "pad_token_id": 0,
}  # fmt: skip
RERANKERS: dict[str, tuple[Any, str, str]] = {
    "bert": (WRITTEN["bert"], "BertTokenizer", "wordpiece"),
    "roberta": (WRITTEN["roberta"], "RobertaTokenizer", "bpe"),
    "xlm-roberta": (WRITTEN["xlm-roberta"], "XLMRobertaTokenizer", "unigram"),
    "distilbert": (WRITTEN["distilbert"], "DistilBertTokenizer", "wordpiece"),
    "electra": (TRACED["electra"], "ElectraTokenizer", "wordpiece"),
    "deberta-v2": ((transformers.DebertaV2Config, _DEBERTA), "DebertaV2Tokenizer", "deberta"),
}
TORCH = ("electra", "deberta-v2")
READ_TYPES = ("bert", "electra", "deberta-v2")


def save_reranker(name: str, folder: Path, side: str = "right") -> Any:
    """A checkpoint with one label in ``folder``; returns the model that wrote it."""
    (config, values), tokenizer, kind = RERANKERS[name]
    sizes = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": values.get("max_position_embeddings", TOKENS),
    }
    if name == "electra":
        sizes["max_position_embeddings"] = TOKENS
    model = save_model((config, values | sizes), folder, 1, tokenizer_class=tokenizer)
    _trained(kind).save(str(folder / "tokenizer.json"))
    options = {"tokenizer_class": tokenizer, "truncation_side": side, "model_max_length": TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    return model


def _trained(kind: str) -> Tokenizer:
    """A tokenizer of at most VOCABULARY tokens, in the form that a class of transformers reads."""
    tokenizer: Tokenizer
    trainer: Any
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=_BERT, show_progress=False)
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=_ROBERTA,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        special: list[Any] = list(_BERT if kind == "deberta" else _ROBERTA)
        special[-1] = AddedToken(special[-1], lstrip=True)
        trainer = trainers.UnigramTrainer(
            vocab_size=VOCABULARY - 1,
            special_tokens=special,
            unk_token="[UNK]" if kind == "deberta" else "<unk>",
            show_progress=False,
        )
    tokenizer.train_from_iterator(own_texts(), trainer)
    return tokenizer


def random_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of all lengths: empty and short texts, ones past any limit, some queries that leave no room."""
    rng = random.Random(seed)
    words = " ".join(own_texts()).split()

    def words_of(longest: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(1, longest)))

    found = [
        ("no", " "), ("a", "b"), ("no", words_of(5)), ("pizza 👍", "素晴らしい [SEP] </s> <mask>"),
        (words_of(3), " ".join(rng.choices(words, k=900))), (" ".join(rng.choices(words, k=900)), "no"),
        (" ".join(rng.choices(words, k=900)), words_of(900)),
        (words_of(40), "  ".join(rng.choices(words, k=600))),
    ]  # fmt: skip
    while len(found) < count:
        found.append((words_of(rng.choice([3, 10, 120])), words_of(rng.choice([3, 30, 200, 500]))))
    return found


def of_transformers(
    model: Any, folder: Path, pairs: list[tuple[str, str]]
) -> list[tuple[list[int], float, int] | None]:
    """Token ids, the logit, and the tokens before truncation of each pair alone; None without room."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found: list[tuple[list[int], float, int] | None] = []
    for query, text in pairs:
        try:
            inputs = tokenizer(query, text, truncation="only_second", max_length=TOKENS, return_tensors="pt")
        except Exception as error:
            if "too short to respect" not in str(error):
                raise
            found.append(None)
            continue
        with torch.no_grad():
            logit = float(model(**inputs).logits[0, 0])
        whole = len(tokenizer(query, text, verbose=False)["input_ids"])
        found.append((inputs["input_ids"][0].tolist(), logit, whole))
    return found
