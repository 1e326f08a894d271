"""Token ids of single inputs, and how they become the tensors of a batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from export.spec import TYPE_IDS

Ids = npt.NDArray[np.int64]


class PairRow(list[int]):
    """Token ids of a pair of texts, with their token types; only models that read types have such rows."""

    def __init__(self, ids: Sequence[int], types: Sequence[int]) -> None:
        super().__init__(ids)
        self.types = list(types)


def types_of(row: Sequence[int]) -> list[int]:
    """The token types of a row: 0 where it has none of its own."""
    return row.types if isinstance(row, PairRow) else [0] * len(row)


def pad(rows: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """Token ids of B texts as one batch: ids and mask INT64 [B, longest], zeros where a text has ended."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
        mask[line, : len(row)] = 1
    return ids, mask


def pad_types(rows: Sequence[Sequence[int]]) -> Ids | None:
    """Token types of the same batch INT64 [B, longest]; None if no row has types of its own."""
    if not any(isinstance(row, PairRow) for row in rows):
        return None
    types = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for line, row in enumerate(rows):
        types[line, : len(row)] = types_of(row)
    return types


def feeds(rows: Sequence[Sequence[int]], names: Collection[str]) -> dict[str, Ids]:
    """What a graph with inputs of these names is given for a batch of rows."""
    ids, mask = pad(rows)
    tensors = {"input_ids": ids, "attention_mask": mask}
    if TYPE_IDS in names:
        types = pad_types(rows)
        tensors[TYPE_IDS] = np.zeros_like(ids) if types is None else types
    return tensors
