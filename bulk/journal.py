"""The journal of a run: which rows were answered, and with what, so that nothing is asked twice.

A line is ``CRC-32 of the rest, in hexadecimal``, a space, and JSON. The first line is the run's identity,
each other one the rows of a request: ``[[number, [value, …]], …]``. Lines are appended as answers arrive, so
rows are not in order. But a row is read only when all those before the last ``WINDOW_ROWS`` have a result,
so that none is further from its place than that, but those that failed at the server and were asked again by
a later run: these are late, and kept in memory.

``{"finished": …}`` behind them says that the output is complete. It stays the last line until rows that
failed are asked again.

A line that was written survives the end of the process; ``sync`` makes it survive that of the machine. A
line that was cut off by either is dropped when the journal is opened again.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from bulk.errors import JournalError
from bulk.tables.table import Value

WINDOW_ROWS = 4096
"""Rows that may be read and not yet written; part of the identity, because replaying relies on it."""
_FORMAT = 2

Values = Sequence[Value]


class Finished(msgspec.Struct, frozen=True):
    """What a run that came to its end left behind."""

    failed: int
    """Rows without an answer."""
    unanswered: int
    """Of these, the rows that another run asks about again."""
    form: str
    """What else than the answers decides the output's bytes."""


class _Mark(msgspec.Struct):
    finished: Finished


_LINES = msgspec.json.Decoder(list[tuple[int, list[Value]]] | _Mark)


class Journal:
    """An open journal, locked against a second run."""

    def __init__(self, path: Path, identity: Mapping[str, Any], replaces_finished: bool = False) -> None:
        """Open the journal, or begin one.

        Args:
            path: its file.
            identity: what must be the same for its answers to count, as JSON values.
            replaces_finished: whether the journal of another run that came to its end may be deleted.

        Raises:
            JournalError: it is of another run, or in use, or no journal, or cannot be written.
        """
        self.path = path
        self.finished: Finished | None = None
        """Of the run that wrote it so far, if it came to its end."""
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
        self._late: dict[int, Values] = {}
        try:
            self._replay = self._begin(
                {"journal": _FORMAT, "window": WINDOW_ROWS, **identity}, replaces_finished
            )
        except BaseException:
            self._file.close()
            raise

    def _begin(self, identity: dict[str, Any], replaces_finished: bool) -> Iterator[tuple[int, Values]]:
        """Compare identities, cut off an unfinished line, and return an iterator over the answers so far."""
        head = msgspec.json.encode(identity)
        lines = self._lines()
        first, end = next(lines, (b"", 0))
        if not end and not _line(head).startswith(self._beginning(len(head) + 20)):
            raise JournalError(f"{self.path} is no journal of this program; move it away")
        different = _differences(msgspec.json.decode(first), identity) if end else []
        if not different or replaces_finished:
            end = self._look_through(lines, end, keeps=not different)
        if different:
            if self.finished is None:
                raise self._of_another_run(different)
            self.finished, end = None, 0
        os.ftruncate(self._file.fileno(), end)
        if end == 0:
            self._append(head)
            self.sync()
        self.is_resumed = end > 0
        self._until = os.fstat(self._file.fileno()).st_size
        return self._answers()

    def _beginning(self, size: int) -> bytes:
        with self.path.open("rb") as file:
            return file.read(size)

    def _look_through(self, lines: Iterator[tuple[bytes, int]], end: int, keeps: bool) -> int:
        """Find out whether its run came to its end, and which answers are late; return where lines end."""
        furthest = -1
        for content, line_end in lines:
            end, line = line_end, _LINES.decode(content)
            self.finished = line.finished if isinstance(line, _Mark) else None
            for number, values in [] if isinstance(line, _Mark) else line:
                if keeps and _is_late(number, furthest):
                    self._late[number] = values
                furthest = max(furthest, number)
        return end

    def take(self, number: int) -> Values | None:
        """Return the values of a row, if it was answered; rows are taken in order, each once."""
        if number in self._late:
            return self._late.pop(number)
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

    def finish(self, finished: Finished) -> None:
        """Note that the output is complete, and close the journal.

        Raises:
            JournalError: it cannot be written.
        """
        self._append(msgspec.json.encode(_Mark(finished)))
        self.close()

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
        begun = os.fstat(self._file.fileno()).st_size
        left = memoryview(_line(content))
        try:
            # One call, unless the disk is full: what is killed between two would leave half a line.
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            with suppress(OSError):  # lines behind half a line would be lost
                os.ftruncate(self._file.fileno(), begun)
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
        furthest = -1
        for content, end in lines:
            if end > self._until:  # this run's own
                return
            line = _LINES.decode(content)
            for number, values in [] if isinstance(line, _Mark) else line:
                if not _is_late(number, furthest):
                    yield number, values
                furthest = max(furthest, number)

    def _of_another_run(self, different: Sequence[str]) -> JournalError:
        what = "the input has changed" if different == ["input"] else f"{', '.join(different)} differ"
        return JournalError(
            f"{self.path} is the journal of another run ({what}); "
            "run that one again to finish it, or delete the journal to begin anew"
        )


def _line(content: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _differences(found: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))


def _is_late(number: int, furthest: int) -> bool:
    """Whether an answer is too far behind the furthest row before it to be found by `Journal.take`."""
    return number + WINDOW_ROWS <= furthest
