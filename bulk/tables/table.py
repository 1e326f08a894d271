"""What the formats have in common: a table yields records and makes a writer that keeps them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

Value = str | float | bool | None
"""A value of an added column; None is an empty cell."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row, with what a writer needs to repeat it unchanged."""

    number: int
    """Rows before it, from 0; blank lines of a file are no rows."""
    texts: tuple[str | None, ...]
    """The cells of the columns that were asked for; None where there is nothing or no text."""
    source: Any
    """For the table's own writer alone."""
    problem: str | None = None
    """Why the row cannot be used, if it cannot."""
    is_blank: bool = False
    """Not a row, but a blank line, which is written as it was."""
    size: int = 0
    """Characters, about, that ``source`` holds in memory."""


class RecordWriter(Protocol):
    """Writes the records that a table read, each with values for the added columns."""

    def write(self, record: Record, values: Sequence[Value]) -> None:
        """Write the next record.

        Args:
            record: of the table that made this writer, in the order of reading.
            values: one for each added column; ignored for a blank line.

        Raises:
            TableError: a value cannot be written in the encoding of the output.
        """

    def close(self) -> None:
        """Write what is pending; the stream stays open."""


class Table(Protocol):
    """An input that can be read once, in constant memory."""

    columns: Sequence[str]
    """Names in their order; of JSON Lines, the keys that the first lines have."""
    written_as: Sequence[str]
    """Names of the formats, of ``FORMATS``, that the output is."""
    late_columns: Collection[str] = ()
    """Names that only later rows have."""
    is_open: bool = False
    """Whether later rows may have columns that are not known yet."""
    remark: str | None = None
    """What a person should know about the rows."""

    def describe(self) -> str:
        """Say as what the input is read: format, delimiter, encoding."""

    def samples(self) -> Sequence[Sequence[str | None]]:
        """Return the first rows, a list of texts in the order of ``columns`` each; None is no text."""

    def records(self, columns: Sequence[int]) -> Iterator[Record]:
        """Yield every row with the texts of these columns, by their places.

        Raises:
            TableError: the input is damaged; nothing after that place can be read.
        """

    def position(self) -> tuple[int, int | None]:
        """Return how much was read and how much there is, in one unit; None if that is not known."""

    def writer(self, output: BinaryIO, added: Sequence[str]) -> RecordWriter:
        """Return a writer in the form of the input, with the added columns behind its own."""
