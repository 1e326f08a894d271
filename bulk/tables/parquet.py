"""Parquet, with ``pyarrow``: batches of rows are read and written one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from bulk.errors import TableError
from bulk.tables.source import Source
from bulk.tables.table import Record, Value

_BATCH_ROWS = 8192
_SAMPLE_ROWS = 100


class ParquetTable:
    """A Parquet file; its columns keep their types."""

    def __init__(self, source: Source) -> None:
        """Read the schema.

        Raises:
            TableError: pyarrow is not installed, or this is no Parquet file.
        """
        try:
            import pyarrow  # noqa: PLC0415 (40 MB that other formats do without)
            import pyarrow.parquet  # noqa: PLC0415
        except ImportError as error:
            raise TableError("Parquet needs pyarrow: .venv/bin/pip install -e '.[parquet]'") from error
        if source.size is None:
            raise TableError("Parquet can be read from a file only, not from a pipe")
        self._name = source.name
        try:
            self._file = pyarrow.parquet.ParquetFile(source.stream)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise TableError(f"{source.name} is no Parquet file") from error
        self._schema = self._file.schema_arrow
        self.columns: Sequence[str] = list(self._schema.names)
        types = pyarrow.types
        self._is_text = [
            types.is_string(_value_type(kind)) or types.is_large_string(_value_type(kind))
            for kind in self._schema.types
        ]
        self._read = 0
        self._arrow = pyarrow

    def describe(self) -> str:
        """Say the format."""
        return "Parquet"

    def samples(self) -> Sequence[Sequence[str | None]]:
        """Return the first rows."""
        batch = next(self._file.iter_batches(batch_size=_SAMPLE_ROWS), None)
        if batch is None:
            return []
        texts = [
            column.to_pylist() if is_text else [None] * len(batch)
            for column, is_text in zip(batch.columns, self._is_text, strict=True)
        ]
        return list(zip(*texts, strict=True))

    def position(self) -> tuple[int, int | None]:
        """Return rows that were read, and how many there are."""
        return self._read, self._file.metadata.num_rows

    def records(self, columns: Sequence[int]) -> Iterator[Record]:
        """Yield the rows; see `Table.records`."""
        for place in columns:
            if not self._is_text[place]:
                raise TableError(f"the column {self.columns[place]} of {self._name} holds no text")
        number = 0
        try:
            for batch in self._file.iter_batches(batch_size=_BATCH_ROWS):
                texts = [batch.column(place).to_pylist() for place in columns]
                for place, row in enumerate(zip(*texts, strict=True)):
                    yield Record(number, row, (batch, place))
                    number += 1
                    self._read = number
        except (self._arrow.ArrowException, OSError) as error:
            raise TableError(f"{self._name} is damaged after row {number}") from error

    def writer(self, output: BinaryIO, added: Sequence[str]) -> ParquetWriter:
        """Return a writer; the added columns have the types of their names' values."""
        return ParquetWriter(self._arrow, self._schema, output, added)


class ParquetWriter:
    """Collects the values of a batch, and writes it when its last row has come."""

    def __init__(self, arrow: Any, schema: Any, output: BinaryIO, added: Sequence[str]) -> None:
        self._arrow = arrow
        self._fields = [arrow.field(name, _type_of(arrow, name)) for name in added]
        self._schema = schema
        for field in self._fields:
            self._schema = self._schema.append(field)
        self._file = arrow.parquet.ParquetWriter(output, self._schema, compression="zstd")
        self._values: list[Sequence[Value]] = []

    def write(self, record: Record, values: Sequence[Value]) -> None:
        """Write a row; see `RecordWriter.write`."""
        batch, place = record.source
        self._values.append(values)
        if place + 1 < len(batch):
            return
        added = [
            self._arrow.array(column, type=field.type)
            for field, column in zip(self._fields, zip(*self._values, strict=True), strict=True)
        ]
        self._values = []
        self._file.write_batch(
            self._arrow.RecordBatch.from_arrays([*batch.columns, *added], schema=self._schema)
        )

    def close(self) -> None:
        """Write the footer."""
        self._file.close()


def _value_type(kind: Any) -> Any:
    """Return what a dictionary column holds."""
    return getattr(kind, "value_type", kind)


def _type_of(arrow: Any, name: str) -> Any:
    """Return the type of an added column; all but these are numbers."""
    if name.endswith(("label", "error")):
        return arrow.string()
    return arrow.bool_() if name.endswith("truncated") else arrow.float64()
