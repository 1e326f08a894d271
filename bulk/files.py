"""Where the output of an input goes, and where it and its journal are while a run lasts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bulk.errors import TableError

_ENDING_OF = {".txt": ".csv", ".text": ".csv"}
"""Plain lines become a table."""
_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """The output of one input, and what stands beside it until it is complete."""

    final: Path

    @classmethod
    def beside(cls, source: Path, word: str) -> OutputFiles:
        """``reviews.csv`` gives ``reviews.classified.csv`` for the word ``classified``."""
        ending = _ENDING_OF.get(source.suffix.lower(), source.suffix)
        return cls(source.with_name(f"{source.stem}.{word}{ending}"))

    @property
    def partial(self) -> Path:
        """What is written so far."""
        return self.final.with_name(self.final.name + ".part")

    @property
    def journal(self) -> Path:
        """Which rows were answered."""
        return self.final.with_name(self.final.name + ".journal")

    def overwrites(self, path: Path) -> bool:
        """Whether a file, such as an input, is the output or one of those beside it, by whatever name."""
        return any(
            own.absolute() == path.absolute() or (own.exists() and path.exists() and own.samefile(path))
            for own in (self.final, self.partial, self.journal)
        )

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Yield a stream; if nothing is raised, its file replaces the final one.

        Raises:
            TableError: it cannot be written.
        """
        try:
            with self.partial.open("wb", buffering=_BUFFER_BYTES) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            self.partial.replace(self.final)
            _sync(self.final.absolute().parent)  # before its journal is removed
        except OSError as error:
            raise TableError(f"{self.final} cannot be written: {error.strerror}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
