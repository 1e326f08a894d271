"""Bytes to read: a file or standard input, with its beginning at hand."""

from __future__ import annotations

import codecs
import hashlib
import io
import select
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bulk.errors import TableError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_LOOKS_EVERY_S = 0.2
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
    """Up to ``SAMPLE_BYTES`` of its beginning; of a pipe, what had arrived with its first line."""
    size: int | None
    """In bytes; None for a pipe."""
    stopped: Callable[[], bool] = lambda: False
    """Whether nobody waits for what is read any longer."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def holds_all(self) -> bool:
        """Whether the sample is the whole file."""
        return self.size is not None and self.size <= len(self.sample)


class _Pipe(io.RawIOBase):
    """A pipe or a terminal that ends when it is told to; a thread that reads cannot be interrupted."""

    def __init__(self, file: io.FileIO, stopped: Callable[[], bool]) -> None:
        self._file = file
        self._stopped = stopped
        self._held = b""
        """Read for the sample, and given out first."""

    def readable(self) -> bool:
        return True

    def sample(self) -> bytes:
        """Return the beginning without taking it: a whole line at least, if there is one."""
        while b"\n" not in self._held and b"\r" not in self._held and len(self._held) < SAMPLE_BYTES:
            chunk = bytearray(SAMPLE_BYTES)
            count = self._wait(chunk)
            if not count:
                break
            self._held += chunk[:count]
        return self._held[:SAMPLE_BYTES]

    def readinto(self, buffer: Buffer) -> int | None:
        if not self._held:
            return self._wait(buffer)
        view = memoryview(buffer).cast("B")
        given, self._held = self._held[: len(view)], self._held[len(view) :]
        view[: len(given)] = given
        return len(given)

    def _wait(self, buffer: Buffer) -> int | None:
        while not select.select([self._file], [], [], _LOOKS_EVERY_S)[0]:
            if self._stopped():
                return 0
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_source(path: Path | None, stopped: Callable[[], bool]) -> Source:
    """Open a file, or standard input for None.

    Args:
        path: the file.
        stopped: asked from time to time while a pipe has nothing to read; true ends it.

    Raises:
        TableError: it cannot be opened.
    """
    if path is None:
        standard = io.FileIO(sys.stdin.fileno(), closefd=False)
        return _of_pipe(None, _Pipe(standard, stopped))
    try:
        if not path.is_file():  # a named pipe is read like standard input
            return _of_pipe(path, _Pipe(io.FileIO(path), stopped))
        file = io.BufferedReader(io.FileIO(path), SAMPLE_BYTES)
        sample = file.read(SAMPLE_BYTES)
        file.seek(0)
        return Source(path, file, sample, path.stat().st_size, stopped)
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from error


def _of_pipe(path: Path | None, pipe: _Pipe) -> Source:
    sample = pipe.sample()
    return Source(path, io.BufferedReader(pipe, SAMPLE_BYTES), sample, None)


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
