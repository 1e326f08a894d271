"""Files as pieces of a bounded size, and the manifest that puts them together again.

The files are written one behind the other and cut every so many bytes, so a large file lies in several pieces
and a piece holds several small files. A manifest has one entry a line, so that a shell can read it:

    python 3.12
    commit 0123abcd
    piece SIZE SHA256 NAME
    file SIZE SHA256 PATH
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MANIFEST = "MANIFEST"
_BUFFER = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]*")


@dataclass(frozen=True)
class Entry:
    """A piece or a file: its name, its size in bytes, and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Cut:
    """What was cut, and into what; both in order."""

    files: tuple[Entry, ...]
    pieces: tuple[Entry, ...]

    def manifest(self, facts: Mapping[str, str]) -> str:
        """The text of the manifest; ``facts`` are single words by name and come first."""
        lines = [f"{name} {value}" for name, value in facts.items()]
        for kind, entries in (("piece", self.pieces), ("file", self.files)):
            lines += [f"{kind} {entry.size} {entry.sha256} {entry.name}" for entry in entries]
        return "\n".join(lines) + "\n"


class _Pieces:
    """Writes a stream of bytes into ``piece-001``, ``piece-002`` and so on."""

    def __init__(self, folder: Path, size: int) -> None:
        self.written: list[Entry] = []
        self._folder = folder
        self._size = size
        self._open: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._left = 0

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._open is None:
                self._open = (self._folder / self._name()).open("xb")
                self._digest, self._left = hashlib.sha256(), self._size
            part = view[: self._left]
            self._open.write(part)
            self._digest.update(part)
            self._left -= len(part)
            view = view[len(part) :]
            if not self._left:
                self.close()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
            self.written.append(Entry(self._name(), self._size - self._left, self._digest.hexdigest()))

    def _name(self) -> str:
        return f"piece-{len(self.written) + 1:03}"


def cut(
    files: Mapping[str, Path], folder: Path, piece_bytes: int, advance: Callable[[int, int], None]
) -> Cut:
    """Write the pieces of ``files`` into ``folder``.

    Args:
        files: the path that each has when it is put together again → where it is now.
        folder: holds no pieces yet.
        piece_bytes: how large a piece is; the last one may be smaller.
        advance: called with the bytes done and the total.

    Raises:
        ValueError: a path that the script on the other machine could not read.
        OSError: a file cannot be read, or a piece cannot be written.
    """
    for path in files:
        if not _NAME.fullmatch(path) or ".." in path.split("/"):
            raise ValueError(f"{path!r} cannot be a path in a bundle")
    total = sum(file.stat().st_size for file in files.values())
    pieces, entries, done = _Pieces(folder, piece_bytes), [], 0
    for path, file in files.items():
        digest, size = hashlib.sha256(), 0
        with file.open("rb") as stream:
            while data := stream.read(_BUFFER):
                digest.update(data)
                size += len(data)
                pieces.write(data)
                advance(done + size, total)
        entries.append(Entry(path, size, digest.hexdigest()))
        done += size
    pieces.close()
    return Cut(tuple(entries), tuple(pieces.written))
