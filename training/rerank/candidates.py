"""What a query is ranked against: its own text, others that BM25 finds, and random ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bm25s
import numpy as np
import Stemmer

from training.rerank.pairs import Pair


@dataclass(frozen=True)
class Group:
    """A query and its candidates; the first is the one that belongs to it."""

    query: str
    texts: tuple[str, ...]
    bm25: tuple[float, ...]
    sources: tuple[str, ...]  # the source package of each text


class Bm25:
    """BM25 (Lucene's variant, English stop words, Snowball stems) over a list of texts."""

    def __init__(self, texts: Sequence[str]):
        self._stemmer = Stemmer.Stemmer("english")
        self._index = bm25s.BM25()
        self._index.index(self._tokens(texts), show_progress=False)

    def scores(self, query: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The score of every text, FP32 [N]."""
        tokens = self._tokens([query])[0]
        size: int = self._index.scores["num_docs"]
        return self._index.get_scores(tokens) if tokens else np.zeros(size, np.float32)

    def _tokens(self, texts: Sequence[str]) -> list[list[str]]:
        return list(
            bm25s.tokenize(
                list(texts), stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
            )
        )


def hardest(index: Bm25, query: str, own: int, count: int) -> list[int]:
    """The texts that score best above zero, best first, without the query's own."""
    scores = index.scores(query)
    scores[own] = 0
    found = np.flatnonzero(scores > 0)
    best = found[np.argsort(-scores[found], kind="stable")[:count]]
    return [int(i) for i in best]


def ranking_groups(pairs: Sequence[Pair], queries: int, hard: int, others: int, seed: int) -> list[Group]:
    """``queries`` of the pairs, each with 1 + ``hard`` + ``others`` candidates from the same pairs."""
    rng = random.Random(seed)
    index = Bm25([p.text for p in pairs])
    groups = []
    for own in sorted(rng.sample(range(len(pairs)), min(queries, len(pairs)))):
        scores = index.scores(pairs[own].query)
        found = hardest(index, pairs[own].query, own, hard)
        rest = sorted(set(range(len(pairs))) - {own, *found})
        chosen = [own, *found, *rng.sample(rest, hard + others - len(found))]
        texts, sources = zip(*((pairs[i].text, pairs[i].group) for i in chosen), strict=True)
        groups.append(Group(pairs[own].query, texts, tuple(float(scores[i]) for i in chosen), sources))
    return groups


def reciprocal_rank(scores: Sequence[float], cut: int = 10) -> float:
    """1 / rank of the first candidate, 0 below the cut; candidates of equal score stand before it."""
    rank = 1 + sum(score >= scores[0] for score in scores[1:])
    return 1 / rank if rank <= cut else 0.0
