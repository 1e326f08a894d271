"""The untrained six-layer encoder as it is: cosine of mean-pooled states, teacher and baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertModel

from training.rerank.threads import on_all_cores

MAX_TOKENS = 256  # all-MiniLM-L6-v2's own limit


class BiEncoder:
    """Embeds texts, one at a time; similar texts have similar directions."""

    def __init__(self, folder: Path, max_tokens: int = MAX_TOKENS):
        self.model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)

    def embed(self, texts: Sequence[str], *, bf16: bool = False, batch: int = 64) -> torch.Tensor:
        """Vectors of length 1, FP32 [N, 384]."""
        rows = [e.ids for e in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        batches = [order[start : start + batch] for start in range(0, len(order), batch)]

        def pooled(index: list[int]) -> torch.Tensor:
            return self._pooled([rows[i] for i in index], bf16)

        found = on_all_cores(pooled, batches, "batch", "embedding")
        result = torch.empty(len(rows), 384)
        result[order] = torch.cat(found)
        return torch.nn.functional.normalize(result)

    @torch.inference_mode()
    def _pooled(self, rows: list[list[int]], bf16: bool) -> torch.Tensor:
        """The mean of the states over each row's tokens, FP32 [B, 384]."""
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[..., None].float()
        return (states.float() * weights).sum(1) / weights.sum(1)
