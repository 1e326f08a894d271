"""The journal of a run: which rows were answered, and with what, so that nothing is asked twice.

A line is ``CRC-32 of the rest, in hexadecimal``, a space, and JSON. The first line is the run's identity,
each other one the rows of a request: ``[[number, [value, …]], …]``. Lines are appended as answers arrive, so
rows are not in order. But a row is read only when all those before the last ``WINDOW_ROWS`` are answered, so
that none is further from its place than that.

A line that was written survives the end of the process; ``sync`` makes it survive that of the machine. A
line that was cut off by either is dropped when the journal is opened again.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bulk.errors import JournalError
from bulk.tables.table import Value

WINDOW_ROWS = 4096
"""Rows that may be read and not yet written; part of the identity, because replaying relies on it."""
_FORMAT = 1
_ROWS = msgspec.json.Decoder(list[tuple[int, list[Value]]])

Values = Sequence[Value]


class Journal:
    """An open journal, locked against a second run."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Open the journal, or begin one.

        Args:
            path: its file.
            identity: what must be the same for its answers to count, as JSON values.

        Raises:
            JournalError: it is of another run, or in use, or cannot be written.
        """
        self.path = path
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise JournalError(f"another run is writing {path}") from error
        self._is_dirty = False
        self._held: dict[int, Values] = {}
        self._furthest = -1
        self._replay = self._begin({"journal": _FORMAT, "window": WINDOW_ROWS, **identity})

    def _begin(self, identity: dict[str, Any]) -> Iterator[tuple[int, Values]]:
        """Compare identities, cut off an unfinished line, and return an iterator over the answers so far."""
        end = 0
        lines = self._lines()
        for first, line_end in lines:
            self._compare(msgspec.json.decode(first), identity)
            end = line_end
            break
        for _, line_end in lines:
            end = line_end
        os.ftruncate(self._file.fileno(), end)
        if end == 0:
            self._append(msgspec.json.encode(identity))
            self.sync()
        self.is_resumed = end > 0
        self._until = os.fstat(self._file.fileno()).st_size
        return self._answers()

    def take(self, number: int) -> Values | None:
        """Return the values of a row, if it was answered; rows are taken in order, each once."""
        while number not in self._held and self._furthest < number + WINDOW_ROWS:
            answer = next(self._replay, None)
            if answer is None:
                self._furthest = number + WINDOW_ROWS
                break
            self._held[answer[0]] = answer[1]
            self._furthest = max(self._furthest, answer[0])
        return self._held.pop(number, None)

    def add(self, rows: Sequence[tuple[int, Values]]) -> None:
        """Append the answers of one request.

        Raises:
            JournalError: it cannot be written.
        """
        self._append(msgspec.json.encode(rows))

    def sync(self) -> None:
        """Make what was appended survive a loss of power; may be called from any thread.

        Raises:
            JournalError: it cannot be written.
        """
        if not self._is_dirty:
            return
        self._is_dirty = False
        try:
            os.fdatasync(self._file.fileno())
        except OSError as error:
            raise JournalError(f"the journal {self.path} cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """Delete it, because all is done."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def close(self) -> None:
        """Keep it for the next run."""
        self.sync()
        self._file.close()

    def _append(self, content: bytes) -> None:
        try:
            # One call: what is killed between two would leave half a line, which costs a question.
            self._file.write(b"%08x %s\n" % (zlib.crc32(content), content))
        except OSError as error:
            raise JournalError(f"the journal {self.path} cannot be written: {error.strerror}") from error
        self._is_dirty = True

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        """Yield every whole line's JSON and where it ends; stop at the first that is damaged."""
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                content = line[9:-1]
                if not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(content):
                    return
                end += len(line)
                yield content, end

    def _answers(self) -> Iterator[tuple[int, Values]]:
        lines = self._lines()
        next(lines, None)
        for content, end in lines:
            if end > self._until:  # this run's own
                return
            yield from _ROWS.decode(content)

    def _compare(self, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        different = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
        if not different:
            return
        self._file.close()
        what = "the input has changed" if different == ["input"] else f"{', '.join(different)} differ"
        raise JournalError(
            f"{self.path} is the journal of another run ({what}); "
            "run that one again to finish it, or delete the journal to begin anew"
        )
