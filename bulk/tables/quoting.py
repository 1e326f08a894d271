"""Records of CSV and TSV, read strictly: a stray quote ends with an error, and merges no rows unsaid."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from bulk.errors import TableError
from bulk.tables.encoding import Encoding
from bulk.tables.source import open_source
from bulk.tables.text_stream import MAX_RECORD, TextLines

_LOOKS_EVERY = 1000
"""Records, to see whether it goes on."""
_WAY_OUT = (
    "write a quote within a quoted cell twice, or add --quoting none if quotes are plain characters "
    "in this file"
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a record is split into cells."""

    delimiter: str
    """One character."""
    quoting: str | None = None
    """``csv`` or ``none``; None is ``csv``, with doubts about rows that a quote may have merged."""

    @property
    def has_quotes(self) -> bool:
        """Whether a cell that begins with a quote ends with one, and may hold delimiters and line ends."""
        return self.quoting != "none"

    def reader(self, lines: Iterable[str], *, strict: bool = True) -> Iterator[list[str]]:
        """Return a reader of these lines; one that is not strict takes a stray quote for what it may be."""
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self.has_quotes else csv.QUOTE_NONE
        return csv.reader(lines, delimiter=self.delimiter, strict=strict, quoting=quoting)

    def cells(self, raw: str) -> list[str]:
        """Return the cells of a record that could be read before."""
        return next(self.reader(io.StringIO(raw, newline="")))


class RawRecord(NamedTuple):
    """A record as it stands in the file."""

    cells: list[str]
    """Empty for a blank line."""
    raw: str
    first: int
    """Its first line, from 1."""
    last: int


def read_records(lines: TextLines, dialect: Dialect, name: str) -> Iterator[RawRecord]:
    """Yield every record; no line after its last is read before it is taken.

    Args:
        lines: the input.
        dialect: how to split.
        name: what to call the input.

    Raises:
        TableError: a quote is not closed, or text stands behind a closing one.
    """
    csv.field_size_limit(MAX_RECORD)
    taken: list[str] = []

    def noted() -> Iterator[str]:
        size = 0
        for line in lines:
            # Without a limit, a quote that is never closed would take the rest of the file into memory.
            size = len(line) if not taken else size + len(line)
            if size > MAX_RECORD:
                raise csv.Error("field larger than field limit")
            taken.append(line)
            yield line

    reader = dialect.reader(noted())
    while True:
        first = lines.number + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TableError(_sentence(name, first, lines.number, str(error))) from error
        if cells is None:
            return
        yield RawRecord(cells, "".join(taken), first, lines.number)
        taken.clear()


def _sentence(name: str, first: int, last: int, problem: str) -> str:
    if "limit" in problem:
        return f"{name}: a quote in line {first} is not closed within {MAX_RECORD:,} characters; {_WAY_OUT}"
    if "end of data" in problem:
        return f"{name}: a quote in line {first} is not closed before the end of the file; {_WAY_OUT}"
    begun = "" if first == last else f" of a row that begins in line {first}"
    return f"{name}: in line {last}, text stands behind a closing quote{begun}; {_WAY_OUT}"


def refuse_merged(record: RawRecord, width: int, dialect: Dialect, name: str) -> None:
    """Refuse a record of several lines each of which is a whole row by its tabs.

    Texts hold commas, but hardly ever tabs: so many of them in every line are no chance.

    Args:
        record: what was read.
        width: how many cells the header has.
        dialect: how it was read; nothing is refused if its quoting was named.
        name: what to call the input.

    Raises:
        TableError: it is such a record.
    """
    if record.first == record.last or dialect.quoting is not None or dialect.delimiter != "\t" or width < 2:
        return
    tabs = [line.count("\t") for line in io.StringIO(record.raw, newline="") if line.strip("\r\n")]
    if len(tabs) > 1 and set(tabs) == {width - 1}:
        raise TableError(
            f"{name}: lines {record.first} to {record.last} are one row by their quotes, and several by "
            "their tabs; add --quoting none if quotes are plain characters in this file, --quoting csv if "
            "it is one row"
        )


def check_file(
    path: Path, encoding: Encoding, dialect: Dialect, width: int, stopped: Callable[[], bool]
) -> str | None:
    """Read a whole file once in constant memory, so that it is refused before anything is asked.

    It ends early if ``stopped`` says so.

    Returns:
        A remark about rows that have several lines; None if there is none.

    Raises:
        TableError: as `read_records` and `refuse_merged`.
    """
    source = open_source(path, stopped)
    count, where = 0, ""
    with source.stream:
        lines = TextLines(source, encoding)  # kept: its end would close the stream with a warning
        for number, record in enumerate(read_records(lines, dialect, source.name)):
            if number % _LOOKS_EVERY == 0 and stopped():
                break
            if record.first == record.last:
                continue
            refuse_merged(record, width, dialect, source.name)
            where = where or f"lines {record.first} to {record.last}"
            count += 1
    if not count:
        return None
    has = "1 row has" if count == 1 else f"{count:,} rows have"
    return f"{has} several lines within quotes (first: {where})"
