"""Lines of text from bytes, and text to bytes, with line ends as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from bulk.errors import TableError
from bulk.tables.encoding import Encoding
from bulk.tables.source import Source

MAX_RECORD = 16 << 20
"""Characters of the longest line or cell; a longer one is a quote that nobody closed, or no text file."""
_MARK = "\ufeff"


class TextLines:
    """Iterates over the lines of a source, each with its own end: LF, CR LF or CR."""

    def __init__(self, source: Source, encoding: Encoding) -> None:
        self._source = source
        self._encoding = encoding
        self._text = io.TextIOWrapper(source.stream, encoding.codec, newline="")
        self._is_first = encoding.has_mark
        self.number = 0
        """Lines that were given out."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(MAX_RECORD)
        except UnicodeDecodeError as error:
            raise TableError(
                f"{self._source.name} has bytes that are not {self._encoding} soon after line {self.number}; "
                "name the encoding with --encoding"
            ) from error
        if self._is_first:
            self._is_first, line = False, line.removeprefix(_MARK)
        if not line:
            raise StopIteration
        if len(line) >= MAX_RECORD:
            raise TableError(
                f"{self._source.name}: line {self.number + 1} has {MAX_RECORD} characters or more"
            )
        self.number += 1
        return line

    def position(self) -> tuple[int, int | None]:
        """Return the bytes that were read, and how many there are."""
        if self._source.size is None:
            return 0, None
        return min(self._source.stream.tell(), self._source.size), self._source.size


class TextOutput:
    """Encodes strictly: what an encoding lacks is an error, never a question mark."""

    def __init__(self, output: BinaryIO, encoding: Encoding) -> None:
        self._output = output
        self._encoding = encoding
        if encoding.has_mark:
            output.write(_MARK.encode(encoding.codec))

    def write(self, text: str) -> None:
        """Write text.

        Raises:
            TableError: the encoding lacks a character.
        """
        try:
            self._output.write(text.encode(self._encoding.codec))
        except UnicodeEncodeError as error:
            raise TableError(
                f"{self._encoding} has no {text[error.start]!r}, which the output needs; "
                "name another with --output-encoding"
            ) from error


def line_end(line: str) -> str:
    """Return the end of a line; without one, a line feed."""
    for end in ("\r\n", "\n", "\r"):
        if line.endswith(end):
            return end
    return "\n"


def sample_text(source: Source, encoding: Encoding, limit: int) -> str:
    """Return whole lines of the beginning, up to ``limit`` bytes of it."""
    sample = source.sample[:limit]
    text = sample.decode(encoding.codec, errors="ignore").removeprefix(_MARK)
    if source.size == len(sample):
        return text
    cut = max(text.rfind("\n"), text.rfind("\r"))
    return text[: cut + 1] if cut >= 0 else text
