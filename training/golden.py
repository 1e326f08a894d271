"""Golden logits: what ``transformers`` and torch compute from the bundled checkpoint.

``python -m training.golden`` (or ``make golden``) writes ``loadtest/golden_logits.jsonl``; the
tests compare the served FP32 and INT8 models with it and need no torch.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoTokenizer, DistilBertForSequenceClassification

CHECKPOINT = Path("checkpoints/minilm-sst2")
OUT = Path("loadtest/golden_logits.jsonl")
SENTENCES = 200
EDGES = (
    "This pizza is great!",
    "x",
    " ",
    "\u200b\u00ad",  # nothing is left of it after normalisation
    "I \u2764\ufe0f this \U0001f355\U0001f44d\U0001f3fd!!",
    "这个披萨很好吃。",
    "Cafe\u0301 na\u00efve \u212bngstr\u00f6m e\u0300\u0301\u0302",
    "tab\there\nnew line\r\x00\x07control",
    "[CLS] [SEP] [PAD] [MASK] [UNK]",
    "https://example.org/?q=1&r=2 @someone #hashtag $9.99",
    "not " * 40 + "bad",
    "great " * 509 + "awful",
    "great " * 510,
    "terrible " * 10_000,
)


def texts() -> list[str]:
    """Edge cases, then every n-th held-out sentence, then growing paragraphs made of them."""
    with (CHECKPOINT / "heldout.tsv").open(newline="", encoding="utf-8") as file:
        sentences = [row["text"] for row in csv.DictReader(file, delimiter="\t")]
    chosen = sentences[:: len(sentences) // SENTENCES]
    paragraphs = [" ".join(sentences[:count]) for count in (2, 4, 8, 12, 16, 20, 40)]
    return [*EDGES, *chosen, *paragraphs]


@torch.no_grad()
def main() -> None:
    """Score every text alone, in FP32, truncated to 512 tokens, and write one JSON line each."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    model = DistilBertForSequenceClassification.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    with OUT.open("w", encoding="utf-8") as file:
        for text in tqdm(texts(), unit="text"):
            batch = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
            full = len(tokenizer(text)["input_ids"])
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0]
            file.write(json.dumps({"text": text, "logits": logits.tolist(), "tokens": full}) + "\n")


if __name__ == "__main__":
    main()
