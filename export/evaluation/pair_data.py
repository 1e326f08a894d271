"""Pairs to evaluate a reranker on: rows of query and text, with or without relevance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExamplesError
from export.evaluation.data import Columns, Examples, checked_text, read_rows

_RELEVANCE = {"0": False, "1": True}


def load_pairs(path: Path, columns: Columns | None = None) -> Examples:
    """Read ``query``, ``text`` and, if it is there, ``label`` of every row; rows of one query are a group.

    A label is 1 for a relevant text and 0 for another; all rows have one, or none.

    Raises:
        ExamplesError: the file cannot be used; the message names the line and the remedy.
    """
    columns = columns or Columns()
    queries: list[str] = []
    texts: list[str] = []
    relevant: list[bool] = []
    for line, row in read_rows(path, columns.wanted("query")):
        where = f"{path.name}, line {line}"
        queries.append(checked_text(row["query"], where, "query"))
        texts.append(checked_text(row[columns.text], where, columns.text))
        if row.get(columns.labels) is not None:
            relevant.append(_relevance(row[columns.labels], where))
        if len(relevant) not in (0, len(texts)):
            raise ExamplesError(
                f"{where}: {columns.labels} stands in some rows only; give every row one, or none."
            )
    if not texts:
        raise ExamplesError(f"{path.name} holds no pairs; give rows of query and text.")
    targets = np.array(relevant)[:, None] if relevant else None
    found = Examples(tuple(texts), targets, path.name, queries=tuple(queries))
    if max(map(len, found.groups)) < 2:
        raise ExamplesError(
            f"{path.name} has one text for each query; a reranker is judged by the order of several texts "
            "of a query."
        )
    return found


def _relevance(label: Any, where: str) -> bool:
    written = str(label).strip() if isinstance(label, str | int) else ""
    if isinstance(label, bool) or written not in _RELEVANCE:
        raise ExamplesError(
            f"{where}: label is {label!r}; it must be 1 for a relevant text and 0 for another. Leave the "
            "column out if nothing is known."
        )
    return _RELEVANCE[written]
