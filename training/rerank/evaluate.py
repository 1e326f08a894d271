"""MRR@10 on held-out queries: ``python -m training.rerank.evaluate``.

Each query is ranked against its own text, 30 others that BM25 finds and 19 random ones, all from source
packages that training never saw. ``--onnx NAME=FILE`` adds a graph that the exporter wrote.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from tqdm import tqdm
from transformers import BertForSequenceClassification

from training.packages import unpack_minilm
from training.rerank.bi_encoder import BiEncoder
from training.rerank.candidates import Group, ranking_groups, reciprocal_rank
from training.rerank.dataset import load_pairs
from training.rerank.encode import Row, batch_of, load_tokenizer, logits_of, rows_of
from training.rerank.threads import on_all_cores

QUERIES, HARD, OTHERS, SEED = 200, 30, 19, 7
MAX_TOKENS = 512
Logits = Callable[[Sequence[Row]], torch.Tensor]


@dataclass(frozen=True)
class Figures:
    """The mean of 1 / rank (0 below the tenth), its standard error, and how often the first is right."""

    name: str
    mrr: float
    error: float
    first: float

    def row(self) -> str:
        """A row of the table in Markdown."""
        return f"| {self.name} | {self.mrr:.3f} | ±{self.error:.3f} | {100 * self.first:.1f} % |"


HEADER = "| ranked by | MRR@10 | standard error | right text first |\n|---|---|---|---|"


def figures(name: str, scores: Sequence[Sequence[float]]) -> Figures:
    """Measure rankings: one list of scores for each query, that of the right text first."""
    ranks = [reciprocal_rank(s) for s in scores]
    mean = sum(ranks) / len(ranks)
    variance = sum((r - mean) ** 2 for r in ranks) / max(1, len(ranks) - 1)
    return Figures(name, mean, math.sqrt(variance / len(ranks)), sum(r == 1 for r in ranks) / len(ranks))


def bm25(groups: Sequence[Group]) -> Figures:
    """By the scores that also chose the hard candidates."""
    return figures("BM25", [g.bm25 for g in groups])


def untrained(groups: Sequence[Group], base: Path) -> Figures:
    """By the cosine of the pretrained encoder's mean-pooled states, all six layers."""
    encoder = BiEncoder(base)
    texts = sorted({text for g in groups for text in g.texts})
    vectors = dict(zip(texts, encoder.embed(texts), strict=True))
    queries = encoder.embed([g.query for g in groups])
    scores = [[float(q @ vectors[t]) for t in g.texts] for q, g in zip(queries, groups, strict=True)]
    return figures("cosine of the untrained encoder", scores)


def trained(name: str, groups: Sequence[Group], tokenizer_file: Path, logits: Logits) -> Figures:
    """By the logits of pairs, cut to 512 tokens."""
    tokenizer = load_tokenizer(str(tokenizer_file), MAX_TOKENS)

    def score(group: Group) -> list[float]:
        return list(map(float, logits(rows_of(tokenizer, [(group.query, text) for text in group.texts]))))

    return figures(name, on_all_cores(score, groups, "query", name))


def checkpoint_logits(folder: Path) -> Logits:
    """The weights of a folder in FP32 arithmetic."""
    model = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return lambda rows: logits_of(model, rows)


def onnx_logits(file: Path) -> Logits:
    """A graph with INT64 or INT32 inputs of BERT's names and one output [B, 1]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    types = {i.name: np.int32 if "int32" in i.type else np.int64 for i in session.get_inputs()}

    def logits(rows: Sequence[Row]) -> torch.Tensor:
        # One after the other: dynamic quantisation sees a whole batch, and padding changes it.
        result = torch.empty(len(rows))
        for i, row in enumerate(rows):
            batch: dict[str, Any] = {k: v.numpy() for k, v in batch_of([row]).items()}
            found = session.run(None, {name: batch[name].astype(kind) for name, kind in types.items()})
            result[i] = float(found[0].reshape(-1)[0])
        return result

    return logits


def groups_of(cache: Path, split: str, queries: int = QUERIES) -> list[Group]:
    """The queries that figures are measured on, and their 50 candidates each, all of one split."""
    pairs = [p for p in load_pairs(cache) if p.split == split]
    return ranking_groups(pairs, queries, HARD, OTHERS, SEED)


def main() -> None:
    """Parse the command line, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/minilm-rerank"))
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--split", choices=("heldout", "dev"), default="heldout")
    parser.add_argument("--onnx", action="append", default=[], metavar="NAME=FILE")
    given = parser.parse_args()
    groups = groups_of(given.cache, given.split, given.queries)
    tqdm.write(HEADER)
    tqdm.write(bm25(groups).row())
    tqdm.write(untrained(groups, unpack_minilm(given.cache)).row())
    tokenizer = given.checkpoint / "tokenizer.json"
    tqdm.write(trained("checkpoint, FP32", groups, tokenizer, checkpoint_logits(given.checkpoint)).row())
    for name, _, file in (option.partition("=") for option in given.onnx):
        tqdm.write(trained(name, groups, tokenizer, onnx_logits(Path(file))).row())


if __name__ == "__main__":
    main()
