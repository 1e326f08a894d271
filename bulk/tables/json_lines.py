"""JSON Lines. ``msgspec`` reads; an object is written as it was, with keys behind its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import msgspec

from bulk.tables.encoding import Encoding
from bulk.tables.source import Source
from bulk.tables.table import Record, Value
from bulk.tables.text_stream import TextLines, TextOutput, line_end, sample_text

_SAMPLE_BYTES = 256 * 1024
_SAMPLE_ROWS = 100


class JsonLinesTable:
    """One JSON object a line; the columns are the keys of the first ones."""

    def __init__(self, source: Source, encoding: Encoding, output: Encoding) -> None:
        self._encoding = encoding
        self._output_encoding = output
        lines = sample_text(source, encoding, _SAMPLE_BYTES).splitlines()
        objects = [_object(line) for line in lines if line.strip()][:_SAMPLE_ROWS]
        self._samples = [row for row in objects if row is not None]
        self.columns: Sequence[str] = list(dict.fromkeys(key for row in self._samples for key in row))
        self._lines = TextLines(source, encoding)

    def describe(self) -> str:
        """Say format and encoding."""
        return f"JSON Lines, {self._encoding}"

    def samples(self) -> Sequence[Sequence[str | None]]:
        """Return the first rows."""
        return [[_text(row.get(name)) for name in self.columns] for row in self._samples]

    def position(self) -> tuple[int, int | None]:
        """Return bytes that were read, and how many there are."""
        return self._lines.position()

    def records(self, columns: Sequence[int]) -> Iterator[Record]:
        """Yield the rows; see `Table.records`."""
        names, number = [self.columns[place] for place in columns], 0
        for line in self._lines:
            if not line.strip():
                yield Record(number, (), line, is_blank=True)
                continue
            row = _object(line)
            if row is None:
                yield Record(number, (None,) * len(names), (line, None), "the line is no JSON object")
            else:
                values = [row.get(name) for name in names]
                yield Record(
                    number, tuple(map(_text, values)), (line, row.keys()), _wrong_type(names, values)
                )
            number += 1

    def writer(self, output: BinaryIO, added: Sequence[str]) -> JsonLinesWriter:
        """Return a writer."""
        return JsonLinesWriter(TextOutput(output, self._output_encoding), added)


class JsonLinesWriter:
    """Appends keys to the text of objects."""

    def __init__(self, output: TextOutput, added: Sequence[str]) -> None:
        self._output = output
        self._added = added

    def write(self, record: Record, values: Sequence[Value]) -> None:
        """Write a row; see `RecordWriter.write`. Keys of the row that have an added name lose their place."""
        if record.is_blank:
            line = str(record.source)
            self._output.write(line if line.endswith(("\n", "\r")) else line + "\n")
            return
        line, keys = record.source
        end = line_end(line)
        more = dict(zip(self._added, values, strict=True))
        if keys is None:  # no object: kept as a string
            self._output.write(_json({"input": line.removesuffix(end)} | more) + end)
            return
        if not keys.isdisjoint(more):
            kept = msgspec.json.decode(line)
            self._output.write(_json({"input": kept} | more) + end)
            return
        body = line.rstrip()[:-1].rstrip()
        self._output.write(body + (", " if keys else "") + _json(more)[1:] + end)

    def close(self) -> None:
        """Nothing is pending."""


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _wrong_type(names: Sequence[str], values: Sequence[object]) -> str | None:
    for name, value in zip(names, values, strict=True):
        if value is not None and not isinstance(value, str):
            return f"{name} is no string"
    return None
