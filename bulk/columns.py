"""Which column of a table holds the texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count

from bulk.errors import TableError
from bulk.tables.table import Table

TEXT_NAMES = (
    *(
        "text",
        "review",
        "review_text",
        "reviewtext",
        "sentence",
        "comment",
        "comment_text",
        "content",
        "body",
    ),
    *("message", "tweet", "post", "feedback", "utterance", "description", "answer", "document", "summary"),
)
"""Names that columns of texts have, the likeliest first; capitals do not count."""
QUERY_NAMES = ("query", "question", "search", "q", "anchor")
DOCUMENT_NAMES = ("document", "context", "passage", "text", "doc", "candidate", "content", "answer", "body")


def find_column(table: Table, name: str, where: str) -> int:
    """Return the place of a column by its name, or by its number from 1 on.

    A name that only later rows have, or may have, becomes the last column.

    Raises:
        TableError: there is none, or more than one.
    """
    places = [place for place, column in enumerate(table.columns) if column == name]
    if len(places) == 1:
        return places[0]
    if len(places) > 1:
        numbers = ", ".join(str(place + 1) for place in places)
        raise TableError(f"{where} has several columns {name}; name one by its number: {numbers}")
    if name.isdecimal() and 1 <= int(name) <= len(table.columns):
        return int(name) - 1
    if name in table.late_columns or table.is_open:
        table.columns = [*table.columns, name]
        return len(table.columns) - 1
    raise TableError(f"{where} has no column {name}; it has: {', '.join(table.columns)}")


def guess_column(table: Table, names: Sequence[str], where: str) -> int:
    """Return the place of the column that is likeliest to hold what is looked for.

    A column that has one of the names counts first. Else it is the one whose texts are longest on average.

    Args:
        table: the table.
        names: names that such a column may have, the likeliest first.
        where: what to call the table.

    Raises:
        TableError: no column holds text.
    """
    lowered = [column.strip().lower() for column in table.columns]
    for name in names:
        if lowered.count(name) == 1:
            return lowered.index(name)
    lengths = [0] * len(lowered)
    for row in table.samples():
        for place, text in enumerate(row):
            lengths[place] += len(text or "")
    if not any(lengths):
        raise TableError(f"{where} has no column with text; it has: {', '.join(table.columns) or 'none'}")
    return lengths.index(max(lengths))


def free_prefix(table: Table, names: Sequence[str], given: str | None) -> str:
    """Return a prefix that keeps the added columns apart from the table's own.

    Args:
        table: the table.
        names: of the columns that are to be added.
        given: the prefix that a person named; None needs one only where a name is taken.

    Raises:
        TableError: with the given one, a name would stand there twice.
    """
    taken = {*table.columns, *table.late_columns}
    if given is not None:
        if doubled := [given + name for name in names if given + name in taken]:
            raise TableError(f"the input has a column {doubled[0]} already; name another --prefix")
        return given
    candidates = chain(("", "predicted_"), (f"predicted_{number}_" for number in count(2)))
    return next(prefix for prefix in candidates if taken.isdisjoint(prefix + name for name in names))
