"""The best one-to-one assignment of rows to columns (the Hungarian method)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def best_assignment(gain: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The column of each row, all different, with the greatest sum of gains.

    Of several that are equally good, one that leaves more rows where they are. Shortest augmenting
    paths with potentials, O(n³) (Kuhn 1955, Munkres 1957; in this form Jonker and Volgenant 1987).

    Args:
        gain: INT64 [n, n], not negative.
    """
    count = len(gain)
    weighed = gain * (count + 1) + np.eye(count, dtype=np.int64)
    cost = (weighed.max(initial=0) - weighed).astype(np.float64)
    # Row and column 0 are unused: indices count from 1.
    rows, columns = np.zeros(count + 1), np.zeros(count + 1)
    taken_by = np.zeros(count + 1, np.int64)
    for row in range(1, count + 1):
        taken_by[0] = row
        _augment(cost, rows, columns, taken_by)
    found = np.empty(count, np.int64)
    found[taken_by[1:] - 1] = np.arange(count)
    return found


def _augment(cost: Any, rows: Any, columns: Any, taken_by: Any) -> None:
    """Find a column for the row that column 0 holds, moving others where that is cheapest."""
    shortest, before = np.full(len(columns), np.inf), np.zeros(len(columns), np.int64)
    done = np.zeros(len(columns), bool)
    column = 0
    while taken_by[column]:
        done[column] = True
        row = taken_by[column]
        reduced = np.append(np.inf, cost[row - 1] - rows[row] - columns[1:])
        nearer = ~done & (reduced < shortest)
        shortest[nearer], before[nearer] = reduced[nearer], column
        following = int(np.where(done, np.inf, shortest).argmin())
        step = shortest[following]
        rows[taken_by[done]] += step
        columns[done] -= step
        shortest[~done] -= step
        column = following
    while column:
        taken_by[column] = taken_by[before[column]]
        column = before[column]
