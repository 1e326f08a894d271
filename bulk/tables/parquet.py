"""Parquet, with ``pyarrow``: batches of rows are read and written one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from bulk.errors import TableError
from bulk.tables.source import Source
from bulk.tables.table import Record, Table, Value

_BATCH_ROWS = 8192
_BATCH_BYTES = 32 << 20
"""Of a batch, about; rows are of one size in most files."""
_SAMPLE_ROWS = 100


class ParquetTable(Table):
    """A Parquet file; its columns keep their types."""

    written_as: Sequence[str] = ("parquet",)

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
            types.is_string(kind) or types.is_large_string(kind)
            for kind in (_value_type(types, kind) for kind in self._schema.types)
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
            for batch in self._file.iter_batches(batch_size=self._batch_rows()):
                texts = [batch.column(place).to_pylist() for place in columns]
                size = batch.nbytes // max(1, len(batch))
                for place, row in enumerate(zip(*texts, strict=True)):
                    yield Record(number, row, (batch, place), size=size)
                    number += 1
                    self._read = number
        except (self._arrow.ArrowException, OSError) as error:
            raise TableError(f"{self._name} is damaged after row {number}") from error

    def _batch_rows(self) -> int:
        metadata = self._file.metadata
        groups = (metadata.row_group(place) for place in range(metadata.num_row_groups))
        row_bytes = sum(group.total_byte_size for group in groups) / max(1, metadata.num_rows)
        return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(1, row_bytes))))

    def writer(self, output: BinaryIO, added: Sequence[str]) -> ParquetWriter:
        """Return a writer; the added columns have the types of their names' values."""
        return ParquetWriter(self._arrow, self._schema, output, added)


class ParquetWriter:
    """Collects the values of a batch, and writes it when its last row has come."""

    def __init__(self, arrow: Any, schema: Any, output: BinaryIO, added: Sequence[str]) -> None:
        self._arrow = arrow
        self._schema = schema
        self._output = output
        self._added = added
        self._file: Any = None
        self._values: list[Sequence[Value]] = []

    def write(self, record: Record, values: Sequence[Value]) -> None:
        """Write a row; see `RecordWriter.write`."""
        batch, place = record.source
        self._values.append(values)
        if place + 1 < len(batch):
            return
        columns = list(zip(*self._values, strict=True))
        self._values = []
        file = self._begun(columns)
        types = file.schema.types[len(batch.columns) :]
        added = [self._arrow.array(column, type=kind) for kind, column in zip(types, columns, strict=True)]
        file.write_batch(self._arrow.RecordBatch.from_arrays([*batch.columns, *added], schema=file.schema))

    def close(self) -> None:
        """Write the footer."""
        self._begun([()] * len(self._added)).close()

    def _begun(self, columns: Sequence[Sequence[Value]]) -> Any:
        """Return the open file; the first batch's values decide the types of the added columns."""
        if self._file is None:
            schema = self._schema
            for name, column in zip(self._added, columns, strict=True):
                schema = schema.append(self._arrow.field(name, _type_of(self._arrow, name, column)))
            self._file = self._arrow.parquet.ParquetWriter(self._output, schema, compression="zstd")
        return self._file


def _value_type(types: Any, kind: Any) -> Any:
    """Return what a dictionary column holds; a list has a ``value_type`` too, and is no text."""
    return kind.value_type if types.is_dictionary(kind) else kind


def _type_of(arrow: Any, name: str, column: Sequence[Value]) -> Any:
    """Return the type of the first value; where there is none, that of the values that have such a name."""
    value = next((value for value in column if value is not None), None)
    if isinstance(value, bool) or (value is None and name.endswith("truncated")):
        return arrow.bool_()
    if isinstance(value, str) or (value is None and name.endswith(("label", "error"))):
        return arrow.string()
    return arrow.float64()
