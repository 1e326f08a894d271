"""Bytes to read: a file or standard input, with its beginning at hand."""

from __future__ import annotations

import codecs
import hashlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bulk.errors import TableError

SAMPLE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """An open input."""

    path: Path | None
    """None is standard input."""
    stream: BinaryIO
    """At its beginning."""
    sample: bytes
    """Up to ``SAMPLE_BYTES`` of its beginning; of a pipe, what had arrived."""
    size: int | None
    """In bytes; None for a pipe."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def holds_all(self) -> bool:
        """Whether the sample is the whole file."""
        return self.size is not None and self.size <= len(self.sample)


def open_source(path: Path | None) -> Source:
    """Open a file, or standard input for None.

    Raises:
        TableError: it cannot be opened.
    """
    if path is None:
        pipe = io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False), SAMPLE_BYTES)
        return Source(None, pipe, pipe.peek(SAMPLE_BYTES), None)
    try:
        file = io.BufferedReader(io.FileIO(path), SAMPLE_BYTES)
        if not path.is_file():  # a named pipe is read like standard input
            return Source(path, file, file.peek(SAMPLE_BYTES), None)
        sample = file.read(SAMPLE_BYTES)
        file.seek(0)
        return Source(path, file, sample, path.stat().st_size)
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from error


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        TableError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def first_undecodable(path: Path, codec: str) -> tuple[int, bytes] | None:
    """Decode a whole file in constant memory; return the place of the first wrong byte and what is around it.

    Args:
        path: the file.
        codec: Python's name of the encoding.

    Returns:
        Its offset, and the bytes from there on, up to ``SAMPLE_BYTES``; None if the file can be decoded.

    Raises:
        TableError: it cannot be read.
    """
    decoder = codecs.getincrementaldecoder(codec)()
    place = 0
    try:
        with path.open("rb", buffering=0) as file:
            while True:
                chunk = file.read(_CHUNK_BYTES)
                held = decoder.getstate()[0]
                try:
                    decoder.decode(chunk, final=not chunk)
                except UnicodeDecodeError as error:
                    place += error.start - len(held)
                    file.seek(place)
                    return place, file.read(SAMPLE_BYTES)
                place += len(chunk)
                if not chunk:
                    return None
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from error
