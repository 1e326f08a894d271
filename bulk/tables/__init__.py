"""Tables in files: CSV, TSV, JSON Lines, Parquet, plain lines; read and written in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bulk.errors import TableError
from bulk.tables.delimited import DelimitedTable
from bulk.tables.encoding import Encoding, find_encoding
from bulk.tables.json_lines import JsonLinesTable
from bulk.tables.lines import LinesTable
from bulk.tables.parquet import ParquetTable
from bulk.tables.source import Source, open_source
from bulk.tables.table import Table

__all__ = ["FORMATS", "ReadOptions", "Table", "check_ending", "open_table"]

FORMATS = ("csv", "tsv", "jsonl", "parquet", "lines")
_ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "lines",
}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read and write; what is None is found."""

    format: str | None = None
    """One of ``FORMATS``."""
    delimiter: str | None = None
    encoding: str | None = None
    output_encoding: str | None = None
    """None writes in the encoding of the input."""
    has_header: bool = True
    """Of CSV and TSV."""
    quoting: str | None = None
    """Of CSV and TSV; see `Dialect`."""


def open_table(
    path: Path | None, options: ReadOptions, stopped: Callable[[], bool] = lambda: False
) -> tuple[Source, Table]:
    """Open a file, or standard input for None; whoever calls closes the source.

    Args:
        path: the file.
        options: how to read it.
        stopped: see `open_source`.

    Raises:
        TableError: it cannot be read as asked.
    """
    source = open_source(path, stopped)
    try:
        return source, _table(source, options)
    except BaseException:
        source.stream.close()
        raise


def check_ending(output: Path, table: Table) -> None:
    """Refuse a name for the output whose ending says another format than it will have.

    Raises:
        TableError: it does.
    """
    says = _ENDINGS.get(output.suffix.lower())
    if says not in (None, "lines", *table.written_as):
        endings = [ending for ending, kind in _ENDINGS.items() if kind in table.written_as]
        raise TableError(f"{output}: the output will not be of this format; end its name with {endings[0]}")


def _table(source: Source, options: ReadOptions) -> Table:
    kind = options.format or _format_of(source)
    if kind == "parquet":
        return ParquetTable(source)
    encoding = find_encoding(source, options.encoding)
    output = encoding if options.output_encoding is None else _output(options.output_encoding)
    if kind == "jsonl":
        return JsonLinesTable(source, encoding, output)
    if kind == "lines":
        return LinesTable(source, encoding, output)
    delimiter = "\t" if kind == "tsv" else options.delimiter
    return DelimitedTable(source, encoding, delimiter, options.has_header, output, options.quoting)


def _format_of(source: Source) -> str:
    if source.sample.startswith(b"PAR1"):
        return "parquet"
    if source.path is not None and (kind := _ENDINGS.get(source.path.suffix.lower())):
        return kind
    if source.sample.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return "jsonl"
    if source.path is None:
        return "lines"
    raise TableError(
        f"{source.name}: the ending does not tell its format; name it with --format {'|'.join(FORMATS)}"
    )


def _output(name: str) -> Encoding:
    try:
        "a".encode(name)
    except LookupError as error:
        raise TableError(f"{name} is no encoding that Python knows") from error
    has_mark = name.lower() in ("utf-8-sig", "utf-16", "utf-32")
    codec = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(name.lower(), name)
    return Encoding(codec, has_mark)
