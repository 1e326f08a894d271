"""Scores and accuracy of a model, in FP32."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer

from training.sentiment.data import Sentence
from training.sentiment.model import padded


@torch.no_grad()
def positive_scores(model: torch.nn.Module, rows: list[list[int]]) -> list[float]:
    """P(POSITIVE) of each row in FP32, texts of one length together."""
    model.eval()
    scores = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), 64):
        index = order[start : start + 64]
        logits = model(**padded([rows[i] for i in index])).logits
        for i, score in zip(index, torch.softmax(logits, 1)[:, 1].tolist(), strict=True):
            scores[i] = score
    return scores


def accuracies(model: torch.nn.Module, part: list[Sentence], tokenizer: Tokenizer) -> dict[str, Any]:
    """Accuracy on labelled sentences by source: ``{source: [correct, of]}``."""
    labelled = [s for s in part if s.label is not None]
    rows = [tokenizer.encode(s.text).ids for s in labelled]
    result: dict[str, Any] = {}
    for sentence, score in zip(labelled, positive_scores(model, rows), strict=True):
        entry = result.setdefault(sentence.source, [0, 0])
        entry[0] += int((score > 0.5) == bool(sentence.label))
        entry[1] += 1
    return result
