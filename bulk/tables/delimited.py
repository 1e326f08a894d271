"""CSV and TSV. Python's ``csv`` finds records and cells; the text of a record is written as it was read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from bulk.errors import TableError
from bulk.tables.encoding import Encoding
from bulk.tables.quoting import Dialect, RawRecord, check_file, read_records, refuse_merged
from bulk.tables.source import Source
from bulk.tables.table import Record, Table, Value
from bulk.tables.text_stream import TextLines, TextOutput, line_end, sample_text

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SAMPLE_BYTES = 64 * 1024
_SAMPLE_ROWS = 100


class DelimitedTable(Table):
    """A table whose first record names the columns, unless ``has_header`` is false."""

    def __init__(
        self,
        source: Source,
        encoding: Encoding,
        delimiter: str | None,
        has_header: bool,
        output: Encoding,
        quoting: str | None = None,
    ) -> None:
        """Read the header, and check the whole of a file.

        Args:
            source: the input, at its beginning.
            encoding: of the input.
            delimiter: one character; None finds it.
            has_header: whether the first record names the columns; else they are called 1, 2, 3 …
            output: the encoding to write in.
            quoting: see `Dialect`.

        Raises:
            TableError: there is no header, or a quote is not where it can be.
        """
        self._source = source
        self._encoding = encoding
        self._output_encoding = output
        sample = sample_text(source, encoding, _SAMPLE_BYTES)
        self.delimiter = delimiter or find_delimiter(sample, quoting)
        self._dialect = Dialect(self.delimiter, quoting)
        self.written_as = ("csv", "tsv") if self.delimiter == "\t" else ("csv",)
        self._has_header = has_header
        rows = _rows_of(sample, self._dialect)
        self._samples = rows[has_header : has_header + _SAMPLE_ROWS]
        self._lines = TextLines(source, encoding)
        self._records = read_records(self._lines, self._dialect, source.name)
        header = self._read_header() if has_header else None
        self._header = "" if header is None else header.raw
        self.columns = _numbers(rows) if header is None else header.cells
        if source.path is not None and source.size is not None:
            self.remark = check_file(source.path, encoding, self._dialect, len(self.columns), source.stopped)

    def describe(self) -> str:
        """Say format, delimiter, encoding."""
        quotes = "" if self._dialect.has_quotes else "no quotes, "
        return f"CSV, {DELIMITERS.get(self.delimiter, repr(self.delimiter))}, {quotes}{self._encoding}"

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
        for read in self._records:
            cells, raw = read.cells, read.raw
            if not cells:  # a blank line; an empty cell alone is written ""
                yield Record(number, (), (raw, 0), is_blank=True, size=len(raw))
                continue
            refuse_merged(read, width, self._dialect, self._source.name)
            problem = None
            if len(cells) > width:
                problem = f"the row has {len(cells)} cells, and the header {width}"
            texts = tuple(cells[place] if place < len(cells) else None for place in columns)
            # Not the cells: they would hold the row a second time.
            yield Record(number, texts, (raw, len(cells)), problem, size=len(raw))
            number += 1

    def writer(self, output: BinaryIO, added: Sequence[str]) -> DelimitedWriter:
        """Return a writer that has written the header."""
        text = TextOutput(output, self._output_encoding)
        writer = DelimitedWriter(text, self._dialect, len(self.columns))
        if self._has_header:
            writer.write_header(self._header, added)
        return writer

    def _read_header(self) -> RawRecord:
        for read in self._records:
            if read.cells:
                return read
        raise TableError(f"{self._source.name} is empty")


class DelimitedWriter:
    """Appends cells to the text of records."""

    def __init__(self, output: TextOutput, dialect: Dialect, width: int) -> None:
        self._output = output
        self._dialect = dialect
        self._delimiter = dialect.delimiter
        self._width = width
        self._buffer = io.StringIO(newline="")
        # Before Python 3.13, `csv` quotes only those line ends that it writes itself.
        self._csv = csv.writer(self._buffer, delimiter=dialect.delimiter, lineterminator="\r\n")

    def write_header(self, raw: str, added: Sequence[str]) -> None:
        """Write the header as it was, with the names of the added columns."""
        end = line_end(raw)
        self._output.write(raw.removesuffix(end) + self._delimiter + self._cells(added) + end)

    def write(self, record: Record, values: Sequence[Value]) -> None:
        """Write a row; see `RecordWriter.write`."""
        raw, count = record.source
        if record.is_blank:
            self._output.write(raw if raw.endswith(("\n", "\r")) else raw + "\n")
            return
        end = line_end(raw)
        more = self._delimiter + self._cells(values)
        if count > self._width:
            # The added columns keep their places; the cells that the header does not name come behind them.
            cells = self._dialect.cells(raw)
            row = self._cells(cells[: self._width]) + more
            self._output.write(row + self._delimiter + self._cells(cells[self._width :]) + end)
            return
        missing = self._delimiter * (self._width - count)
        self._output.write(raw.removesuffix(end) + missing + more + end)

    def close(self) -> None:
        """Nothing is pending."""

    def _cells(self, values: Sequence[Value]) -> str:
        if not self._dialect.has_quotes:
            return self._delimiter.join(self._plain(cell_text(value)) for value in values)
        self._buffer.seek(0)
        self._buffer.truncate()
        self._csv.writerow([cell_text(value) for value in values])
        return self._buffer.getvalue().removesuffix("\r\n")

    def _plain(self, text: str) -> str:
        """Return a cell that needs no quotes: a reason may have a comma, and no quotes around it."""
        for character in (self._delimiter, "\r", "\n"):
            text = text.replace(character, " ")
        return text


def cell_text(value: Value) -> str:
    """Return a value as a cell: true and false in small letters, a float in its shortest exact form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def find_delimiter(sample: str, quoting: str | None = None) -> str:
    """Return the delimiter that gives most records of the sample the same number of cells, above one.

    ``csv.Sniffer`` is not used: it looks at characters beside quotes and takes any of them for a delimiter.
    """
    best, best_score = ",", 0.0
    for delimiter in DELIMITERS:
        widths = [len(cells) for cells in _rows_of(sample, Dialect(delimiter, quoting))]
        if not widths or widths[0] < 2:
            continue
        # The header decides how many; commas in texts give some rows more.
        score = sum(width == widths[0] for width in widths) / len(widths)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _rows_of(sample: str, dialect: Dialect) -> list[list[str]]:
    """Return the first rows without blank lines; one that cannot be read is reported in its turn."""
    rows: list[list[str]] = []
    try:
        for cells in dialect.reader(io.StringIO(sample, newline=""), strict=False):
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
