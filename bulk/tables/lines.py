"""Plain lines: each is a text; the output is CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from bulk.tables.delimited import cell_text
from bulk.tables.encoding import Encoding
from bulk.tables.source import Source
from bulk.tables.table import Record, Table, Value
from bulk.tables.text_stream import TextLines, TextOutput, line_end, sample_text

_SAMPLE_BYTES = 64 * 1024


class LinesTable(Table):
    """A table with the column ``text``; an empty line is a row without one."""

    columns: Sequence[str] = ("text",)
    written_as: Sequence[str] = ("csv",)

    def __init__(self, source: Source, encoding: Encoding, output: Encoding) -> None:
        self._encoding = encoding
        self._output_encoding = output
        self._samples = sample_text(source, encoding, _SAMPLE_BYTES).split("\n")[:100]
        self._lines = TextLines(source, encoding)

    def describe(self) -> str:
        """Say format and encoding."""
        return f"plain lines, {self._encoding}"

    def samples(self) -> Sequence[Sequence[str | None]]:
        """Return the first rows."""
        return [[line.rstrip("\r")] for line in self._samples]

    def position(self) -> tuple[int, int | None]:
        """Return bytes that were read, and how many there are."""
        return self._lines.position()

    def records(self, columns: Sequence[int]) -> Iterator[Record]:
        """Yield the rows; see `Table.records`."""
        for number, line in enumerate(self._lines):
            text = line.removesuffix(line_end(line))
            yield Record(number, (text,) * len(columns), text)

    def writer(self, output: BinaryIO, added: Sequence[str]) -> LinesWriter:
        """Return a writer that has written the header."""
        return LinesWriter(TextOutput(output, self._output_encoding), added)


class LinesWriter:
    """Writes CSV with the line as its first column."""

    def __init__(self, output: TextOutput, added: Sequence[str]) -> None:
        self._output = output
        self._buffer = io.StringIO(newline="")
        self._csv = csv.writer(self._buffer, lineterminator="\n")
        self._row(("text", *added))

    def write(self, record: Record, values: Sequence[Value]) -> None:
        """Write a row; see `RecordWriter.write`."""
        self._row((str(record.source), *map(cell_text, values)))

    def close(self) -> None:
        """Nothing is pending."""

    def _row(self, cells: Sequence[str]) -> None:
        self._buffer.seek(0)
        self._buffer.truncate()
        self._csv.writerow(cells)
        self._output.write(self._buffer.getvalue())
