"""JSON Lines. ``msgspec`` reads; an object is written as it was, with keys behind its own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bulk.tables.encoding import Encoding
from bulk.tables.source import SAMPLE_BYTES, Source, open_source
from bulk.tables.table import Record, Table, Value
from bulk.tables.text_stream import TextLines, TextOutput, line_end, sample_text

_SAMPLE_ROWS = 100
_LOOKS_EVERY_LINES = 1000
_MAX_COLUMNS = 1000
"""Different keys that are kept; more are no columns, but data."""


class JsonLinesTable(Table):
    """One JSON object a line; the columns are the keys of the first ones."""

    written_as: Sequence[str] = ("jsonl",)

    def __init__(self, source: Source, encoding: Encoding, output: Encoding) -> None:
        self._encoding = encoding
        self._output_encoding = output
        # Not ``splitlines``, which splits at characters that may stand in a string.
        lines = io.StringIO(sample_text(source, encoding, SAMPLE_BYTES), newline="")
        objects = (row for line in lines if line.strip() and (row := _object(line)) is not None)
        self._samples = list(islice(objects, _SAMPLE_ROWS))
        self.columns = list(dict.fromkeys(key for row in self._samples for key in row))
        self.is_open = True
        if source.path is not None and source.size is not None:
            self.late_columns, self.is_open = _late_columns(
                source.path, encoding, self.columns, source.stopped
            )
        if not self.columns:  # a first line that is longer than the sample
            self.columns, self.late_columns = list(self.late_columns), ()
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
                yield Record(number, (), line, is_blank=True, size=len(line))
                continue
            row = _object(line)
            values = [None if row is None else row.get(name) for name in names]
            problem = "the line is no JSON object" if row is None else _wrong_type(names, values)
            # Not ``row.keys()``, which holds all values too.
            keys = None if row is None else frozenset(row)
            yield Record(number, tuple(map(_text, values)), (line, keys), problem, size=len(line))
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
            self._output.write('{"input":' + line.strip() + "," + _json(more)[1:] + end)
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
        value = _python_object(line)
    return value if isinstance(value, dict) else None


def _python_object(line: str) -> object:
    """Read what is JSON except for the numbers that Python's ``json`` writes for NaN and infinity."""
    if "NaN" not in line and "Infinity" not in line:
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _late_columns(
    path: Path, encoding: Encoding, known: Sequence[str], stopped: Callable[[], bool]
) -> tuple[Collection[str], bool]:
    """Read a whole file; return keys that its first rows lack, and whether there are more than are kept."""
    found = dict.fromkeys(known)
    source = open_source(path, stopped)
    with source.stream:
        lines = TextLines(source, encoding)  # kept: its end would close the stream with a warning
        for line in lines:
            found.update(dict.fromkeys(_object(line) or ()))
            if lines.number % _LOOKS_EVERY_LINES == 0 and stopped():
                break
            if len(found) > _MAX_COLUMNS + len(known):
                return list(found)[len(known) :], True
    return list(found)[len(known) :], False


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _wrong_type(names: Sequence[str], values: Sequence[object]) -> str | None:
    for name, value in zip(names, values, strict=True):
        if value is not None and not isinstance(value, str):
            return f"{name} is no string"
    return None
