"""Texts of mixed lengths in padded batches: neighbours must not move a text's logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.artefact import Artefact, Logits


def mixed(artefact: Artefact, rows: Sequence[Sequence[int]], sizes: Sequence[int] = (2, 3, 8, 17)) -> Logits:
    """Logits [N, labels] of rows of token ids, in batches of changing size."""
    found = []
    start = turn = 0
    while start < len(rows):
        size = sizes[turn % len(sizes)]
        found.append(artefact.padded(rows[start : start + size]))
        start += size
        turn += 1
    return np.concatenate(found)
