"""Answers that have arrived, so that an interrupted comparison goes on where it was. It holds no texts."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from bulk.compare.answers import Side, SideAnswer
from bulk.errors import JournalError


class _Entry(msgspec.Struct, array_like=True):
    side: int
    text: int
    answer: SideAnswer


class CompareJournal:
    """A file with a line for each answer; a context manager.

    Its first line is a digest of the texts and of who is asked, so that it is never taken for another
    comparison's.
    """

    def __init__(self, path: Path, sides: Sequence[Side], texts: Sequence[str]) -> None:
        """Open or make the file.

        Raises:
            JournalError: it belongs to another comparison, another process uses it, or it cannot be written.
        """
        self.path = path
        self.answers: tuple[dict[int, SideAnswer], dict[int, SideAnswer]] = ({}, {})
        """What is known, by side and place of the text."""
        head = _digest(sides, texts)
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        except OSError as error:
            raise JournalError(f"{path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(head)
        except BlockingIOError:
            self._file.close()
            raise JournalError(f"{path} is in use by another comparison") from None
        except BaseException:
            self._file.close()
            raise

    def _read(self, head: bytes) -> None:
        lines = self._file.read().split(b"\n")
        is_whole = len(lines) > 1
        if lines[0] != head and (is_whole or not head.startswith(lines[0])):
            raise JournalError(
                f"{self.path} is of an earlier comparison of other texts, servers or models, which did not "
                "end; remove it, or name another with --journal"
            )
        good = len(head) + 1
        for line in lines[1:-1]:
            try:
                entry = msgspec.json.decode(line, type=_Entry)
            except msgspec.DecodeError:
                break  # the machine went down while it was written; what follows is asked again
            self.answers[entry.side][entry.text] = entry.answer
            good += len(line) + 1
        if not is_whole:
            self._file.seek(0)
            self._file.write(head + b"\n")
            self._file.flush()
        self._file.seek(good)
        self._file.truncate()

    def add(self, side: int, text: int, answer: SideAnswer) -> None:
        """Keep an answer. It survives the end of this process, not necessarily that of the machine.

        Raises:
            JournalError: it could not be written.
        """
        self.answers[side][text] = answer
        try:
            self._file.write(msgspec.json.encode(_Entry(side, text, answer)) + b"\n")
            self._file.flush()
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the file: its answers are in a report."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> CompareJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def _digest(sides: Sequence[Side], texts: Sequence[str]) -> bytes:
    digest = hashlib.sha256()
    for side in sides:
        digest.update(msgspec.json.encode([side.source, side.model]))
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d " % len(encoded) + encoded)
    return digest.hexdigest().encode()
