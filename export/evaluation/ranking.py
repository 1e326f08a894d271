"""How a reranker orders the texts of a query: pure functions on logits.

Logits are FP32 or float64 [pairs]; a group holds the places of the pairs of one query.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Groups = Sequence[Sequence[int]]
Relevant = npt.NDArray[np.bool_]
CUTOFF = 10
"""Texts of a query that the mean reciprocal rank looks at."""
FLAT = 1e-3
"""Logits of one query that are this close together order nothing."""
_ROWS = 1024


@dataclass(frozen=True)
class Relevance:
    """Mean reciprocal rank (MRR@10) over the queries that have a relevant text.

    ``random`` is what texts in random order would give, ``backwards`` what the opposite order gives.
    """

    queries: int
    mrr: float
    random: float
    backwards: float


@dataclass(frozen=True)
class Ranking:
    """How far the order of texts is from a reference's, over queries with two texts or more.

    kendall_tau: mean of tau-b. lowest_tau: that of the worst query. same_top: queries whose first text
    is the reference's, ties included. top_share: the same as a share. changed: places of the texts that are
    first instead. flat: queries whose texts all have about the same logit. relevance: None without labels.
    """

    queries: int
    kendall_tau: float
    lowest_tau: float
    same_top: int
    top_share: float
    changed: tuple[int, ...]
    flat: int
    relevance: Relevance | None


def compare_rankings(
    logits: npt.NDArray[np.floating[Any]],
    reference: npt.NDArray[np.floating[Any]],
    groups: Groups,
    relevant: Relevant | None = None,
) -> Ranking:
    """Compare the order that logits [pairs] give to the texts of each query with a reference's.

    Args:
        logits: the artefact's.
        reference: those of the reference.
        groups: places of the pairs of each query; at least one has two.
        relevant: bool [pairs], or None.
    """
    several = [np.array(group) for group in groups if len(group) > 1]
    taus = [kendall_tau(logits[group], reference[group]) for group in several]
    tops = [int(group[logits[group].argmax()]) for group in several]
    changed = [
        top for top, group in zip(tops, several, strict=True) if reference[top] < reference[group].max()
    ]
    flat = sum(bool(np.ptp(logits[group]) < FLAT) for group in several)
    same = len(several) - len(changed)
    return Ranking(
        queries=len(several),
        kendall_tau=float(np.mean(taus)),
        lowest_tau=min(taus),
        same_top=same,
        top_share=same / len(several),
        changed=tuple(changed),
        flat=flat,
        relevance=None if relevant is None else _relevance(logits, groups, relevant),
    )


def kendall_tau(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Kendall's tau-b of two lists of scores [n], n of 2 or more; 1 where both rank everything alike.

    Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 1945.
    """
    both = one_only = other_only = 0
    # Rows at a time: a query may have thousands of texts.
    for start in range(0, len(one), _ROWS):
        mine = np.sign(one[start : start + _ROWS, None] - one[None, :])
        theirs = np.sign(other[start : start + _ROWS, None] - other[None, :])
        both += int((mine * theirs).sum())
        one_only += int(np.abs(mine).sum())
        other_only += int(np.abs(theirs).sum())
    if one_only == 0 or other_only == 0:
        return float(one_only == other_only)
    return both / math.sqrt(one_only * other_only)


def reciprocal_rank(logits: npt.NDArray[Any], relevant: Relevant, cutoff: int = CUTOFF) -> float:
    """1 / the place of the first relevant text, 0 beyond the cutoff; equal scores put it last."""
    best = logits[relevant].max()
    place = 1 + int((logits[~relevant] >= best).sum())
    return 1 / place if place <= cutoff else 0.0


def random_reciprocal_rank(texts: int, relevant: int, cutoff: int = CUTOFF) -> float:
    """What `reciprocal_rank` is on average if the texts are in random order."""
    ways = math.comb(texts, relevant)
    return sum(math.comb(texts - k, relevant - 1) / ways / k for k in range(1, min(cutoff, texts) + 1))


def _relevance(logits: npt.NDArray[Any], groups: Groups, relevant: Relevant) -> Relevance | None:
    judged = [np.array(group) for group in groups if relevant[list(group)].any()]
    if not judged:
        return None
    return Relevance(
        queries=len(judged),
        mrr=float(np.mean([reciprocal_rank(logits[group], relevant[group]) for group in judged])),
        random=float(
            np.mean([random_reciprocal_rank(len(group), int(relevant[group].sum())) for group in judged])
        ),
        backwards=float(np.mean([reciprocal_rank(-logits[group], relevant[group]) for group in judged])),
    )
