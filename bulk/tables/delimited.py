"""CSV and TSV. Python's ``csv`` finds records and cells; the text of a record is written as it was read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from bulk.errors import TableError
from bulk.tables.encoding import Encoding
from bulk.tables.source import Source
from bulk.tables.table import Record, Value
from bulk.tables.text_stream import MAX_RECORD, TextLines, TextOutput, line_end, sample_text

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SAMPLE_BYTES = 64 * 1024
_SAMPLE_ROWS = 100


class DelimitedTable:
    """A table whose first record names the columns, unless ``has_header`` is false."""

    def __init__(
        self, source: Source, encoding: Encoding, delimiter: str | None, has_header: bool, output: Encoding
    ) -> None:
        """Read the header.

        Args:
            source: the input, at its beginning.
            encoding: of the input.
            delimiter: one character; None finds it.
            has_header: whether the first record names the columns; else they are called 1, 2, 3 …
            output: the encoding to write in.

        Raises:
            TableError: there is no header, or it cannot be read.
        """
        csv.field_size_limit(MAX_RECORD)
        self._source = source
        self._encoding = encoding
        self._output_encoding = output
        sample = sample_text(source, encoding, _SAMPLE_BYTES)
        self.delimiter = delimiter or find_delimiter(sample)
        self._has_header = has_header
        rows = _rows_of(sample, self.delimiter)
        self._samples = rows[has_header : has_header + _SAMPLE_ROWS]
        self._lines = TextLines(source, encoding)
        self._records = self._split()
        self._header = self._read_header() if has_header else ""
        self.columns: Sequence[str] = self._header_cells if has_header else _numbers(rows)

    def describe(self) -> str:
        """Say format, delimiter, encoding."""
        return f"CSV, {DELIMITERS.get(self.delimiter, repr(self.delimiter))}, {self._encoding}"

    def samples(self) -> Sequence[Sequence[str | None]]:
        """Return the first rows."""
        width = len(self.columns)
        return [(cells + [""] * width)[:width] for cells in self._samples]

    def position(self) -> tuple[int, int | None]:
        """Return bytes that were read, and how many there are."""
        return self._lines.position()

    def records(self, columns: Sequence[int]) -> Iterator[Record]:
        """Yield the rows; see `Table.records`."""
        width, number = len(self.columns), 0
        for cells, raw in self._records:
            if not cells:  # a blank line; an empty cell alone is written ""
                yield Record(number, (), (cells, raw), is_blank=True)
                continue
            problem = None
            if len(cells) > width:
                problem = f"the row has {len(cells)} cells, and the header {width}"
            if _is_unclosed(cells, raw, self.delimiter):
                problem = "a quote is not closed before the end of the file"
            texts = tuple(cells[place] if place < len(cells) else None for place in columns)
            yield Record(number, texts, (cells, raw), problem)
            number += 1

    def writer(self, output: BinaryIO, added: Sequence[str]) -> DelimitedWriter:
        """Return a writer that has written the header."""
        text = TextOutput(output, self._output_encoding)
        writer = DelimitedWriter(text, self.delimiter, len(self.columns))
        if self._has_header:
            writer.write_header(self._header, added)
        return writer

    def _read_header(self) -> str:
        for cells, raw in self._records:
            if cells:
                self._header_cells = cells
                return raw
        raise TableError(f"{self._source.name} is empty")

    def _split(self) -> Iterator[tuple[list[str], str]]:
        """Yield cells and text of every record; the reader takes exactly the lines of one record."""
        taken: list[str] = []

        def lines() -> Iterator[str]:
            size = 0
            for line in self._lines:
                # Without a limit, a quote that is never closed would take the rest of the file into memory.
                size = len(line) if not taken else size + len(line)
                if size > MAX_RECORD:
                    raise csv.Error("field larger than field limit")
                taken.append(line)
                yield line

        reader = csv.reader(lines(), delimiter=self.delimiter)
        while True:
            first = self._lines.number + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                hint = "; is a quote not closed?" if "limit" in str(error) else ""
                raise TableError(
                    f"{self._source.name}: the record from line {first} on cannot be read ({error}){hint}"
                ) from error
            if cells is None:
                return
            yield cells, "".join(taken)
            taken.clear()


class DelimitedWriter:
    """Appends cells to the text of records."""

    def __init__(self, output: TextOutput, delimiter: str, width: int) -> None:
        self._output = output
        self._delimiter = delimiter
        self._width = width
        self._buffer = io.StringIO(newline="")
        # Before Python 3.13, `csv` quotes only those line ends that it writes itself.
        self._csv = csv.writer(self._buffer, delimiter=delimiter, lineterminator="\r\n")

    def write_header(self, raw: str, added: Sequence[str]) -> None:
        """Write the header as it was, with the names of the added columns."""
        end = line_end(raw)
        self._output.write(raw.removesuffix(end) + self._delimiter + self._cells(added) + end)

    def write(self, record: Record, values: Sequence[Value]) -> None:
        """Write a row; see `RecordWriter.write`."""
        cells, raw = record.source
        if record.is_blank:
            self._output.write(raw if raw.endswith(("\n", "\r")) else raw + "\n")
            return
        end = line_end(raw)
        more = self._delimiter + self._cells(values)
        if _is_unclosed(cells, raw, self._delimiter):
            raw = self._cells(cells)
        if len(cells) > self._width:
            # The added columns keep their places; the cells that the header does not name come behind them.
            row = self._cells(cells[: self._width]) + more
            self._output.write(row + self._delimiter + self._cells(cells[self._width :]) + end)
            return
        missing = self._delimiter * (self._width - len(cells))
        self._output.write(raw.removesuffix(end) + missing + more + end)

    def close(self) -> None:
        """Nothing is pending."""

    def _cells(self, values: Sequence[Value]) -> str:
        self._buffer.seek(0)
        self._buffer.truncate()
        self._csv.writerow([cell_text(value) for value in values])
        return self._buffer.getvalue().removesuffix("\r\n")


def _is_unclosed(cells: list[str], raw: str, delimiter: str) -> bool:
    """Whether what is appended to a record would stand within a quote; true of the last one only."""
    if raw.count('"') % 2 == 0:
        return False
    longer = raw.removesuffix(line_end(raw)) + delimiter + "x"
    read = next(csv.reader(io.StringIO(longer, newline=""), delimiter=delimiter))
    return read != [*cells, "x"]


def cell_text(value: Value) -> str:
    """Return a value as a cell: true and false in small letters, a float in its shortest exact form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def find_delimiter(sample: str) -> str:
    """Return the delimiter that gives most records of the sample the same number of cells, above one.

    ``csv.Sniffer`` is not used: it looks at characters beside quotes and takes any of them for a delimiter.
    """
    best, best_score = ",", 0.0
    for delimiter in DELIMITERS:
        widths = [len(cells) for cells in _rows_of(sample, delimiter)]
        if not widths or widths[0] < 2:
            continue
        # The header decides how many; commas in texts give some rows more.
        score = sum(width == widths[0] for width in widths) / len(widths)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _rows_of(sample: str, delimiter: str) -> list[list[str]]:
    """Return the first rows without blank lines; one that cannot be read is reported in its turn."""
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
            if cells:
                rows.append(cells)
            if len(rows) > _SAMPLE_ROWS:
                break
    except csv.Error:
        pass
    return rows


def _numbers(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["1"]
    return [str(place + 1) for place in range(max(map(len, rows)))]
