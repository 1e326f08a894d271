"""Token ids of pairs, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Encoding, Tokenizer

Row = tuple[list[int], list[int]]  # ids and token types of one pair


def load_tokenizer(file: str, max_tokens: int) -> Tokenizer:
    """A tokenizer.json without padding, which cuts a pair's text and never its query."""
    tokenizer = Tokenizer.from_file(file)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens, strategy="only_second")
    return tokenizer


def rows_of(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Ids and token types (0: query, 1: text) of each pair (query, text)."""
    encoded: list[Encoding] = tokenizer.encode_batch(list(pairs))
    return [(e.ids, e.type_ids) for e in encoded]


def short_queries(tokenizer: Tokenizer, queries: Sequence[str], most: int) -> list[str]:
    """The queries, those of more than ``most`` tokens cut, so that a text has room beside each."""
    whole = Tokenizer.from_str(tokenizer.to_str())
    whole.no_truncation()
    encoded: list[Encoding] = whole.encode_batch(list(queries), add_special_tokens=False)
    return [
        query[: e.offsets[most - 1][1]] if len(e.ids) > most else query
        for query, e in zip(queries, encoded, strict=True)
    ]


def batch_of(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """INT64 ``input_ids``, ``token_type_ids`` and ``attention_mask`` [B, S], padded on the right with 0."""
    width = max(len(ids) for ids, _ in rows)
    pad = [[0] * (width - len(ids)) for ids, _ in rows]
    return {
        "input_ids": torch.tensor([ids + p for (ids, _), p in zip(rows, pad, strict=True)]),
        "token_type_ids": torch.tensor([types + p for (_, types), p in zip(rows, pad, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(ids) + p for (ids, _), p in zip(rows, pad, strict=True)]),
    }


@torch.inference_mode()
def logits_of(model: torch.nn.Module, rows: Sequence[Row], batch: int = 48) -> torch.Tensor:
    """The logit of each row, FP32 [N]; rows of like length are computed together."""
    model.eval()
    result = torch.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    for start in range(0, len(order), batch):
        index = order[start : start + batch]
        result[index] = model(**batch_of([rows[i] for i in index])).logits[:, 0].float()
    return result
