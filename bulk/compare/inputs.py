"""Texts, and perhaps old scores, out of a table."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

from bulk.columns import TEXT_NAMES, find_column, guess_column
from bulk.errors import TableError
from bulk.tables import ReadOptions, open_table
from bulk.tables.delimited import DelimitedTable


@dataclass(frozen=True, slots=True)
class Inputs:
    """Different texts in the order of the table."""

    texts: tuple[str, ...]
    rows: tuple[int, ...]
    """Of the first of equal texts, from 1."""
    old_scores: tuple[float, ...]
    """Empty if they were not asked for."""
    repeated: int
    empty: int
    """Rows without a text, or without an old score where those are asked for."""
    column: str
    description: str
    """As what the file was read."""


def read_inputs(
    path: Path, options: ReadOptions, column: str | None, old_scores: str | None, sample: int | None
) -> Inputs:
    """Read a table.

    Args:
        path: the file.
        options: how to read it.
        column: of the texts; None takes the only one, or the one with a usual name.
        old_scores: the column of old scores; None does without.
        sample: how many different texts to choose at random, the same ones in every run; None takes all.

    Raises:
        TableError: it cannot be read, a column is missing, or there is no text.
    """
    source, table = open_table(path, options)
    try:
        place = (
            guess_column(table, TEXT_NAMES, source.name)
            if column is None
            else find_column(table, column, source.name)
        )
        places = [place]
        if old_scores is not None:
            if not isinstance(table, DelimitedTable):
                raise TableError("old scores can be read from CSV and TSV only")
            places.append(find_column(table, old_scores, source.name))
        texts: dict[str, tuple[int, float]] = {}
        repeated = empty = 0
        for record in table.records(places):
            if record.is_blank:
                continue
            text = record.texts[0]
            score = _score(record.texts[1], record.number + 1) if old_scores is not None else 0.0
            if record.problem is not None or not text or not _is_unicode(text) or score is None:
                empty += 1
            elif text in texts:
                repeated += 1
            else:
                texts[text] = (record.number + 1, score)
        description = "; ".join(filter(None, (table.describe(), table.remark)))
    finally:
        source.stream.close()
    chosen = list(texts.items())
    if sample is not None and sample < len(chosen):
        # The same ones when an interrupted run goes on.
        numbers = sorted(random.Random(0).sample(range(len(chosen)), sample))  # noqa: S311
        chosen = [chosen[number] for number in numbers]
    if not chosen:
        raise TableError(f"{path} has no text in the column {table.columns[place]}")
    return Inputs(
        tuple(text for text, _ in chosen),
        tuple(row for _, (row, _) in chosen),
        tuple(score for _, (_, score) in chosen) if old_scores is not None else (),
        repeated,
        empty,
        table.columns[place],
        description,
    )


def _score(cell: str | None, row: int) -> float | None:
    if cell is None or not cell.strip():
        return None
    try:
        score = float(cell)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        raise TableError(f"the old score in row {row} is no number between 0 and 1")
    return score


def _is_unicode(text: str) -> bool:
    """Tell whether it can be sent: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
