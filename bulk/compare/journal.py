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


class _Entry(msgspec.Struct, array_like=True, tag="answer"):
    side: int
    text: int
    answer: SideAnswer


class _Head(msgspec.Struct, array_like=True, frozen=True, tag="asked"):
    """What the entries behind it belong to."""

    texts: str
    """A digest."""
    sides: tuple[str, str]
    """Digests of who is asked."""


_LINE = msgspec.json.Decoder(_Entry | _Head)


class CompareJournal:
    """A file with a line for each answer; a context manager.

    Its first line tells the texts and who is asked, so that it is never taken for another comparison's. If
    one server is exchanged, such a line follows again, and the other server's answers stay.
    """

    def __init__(self, path: Path, sides: Sequence[Side], texts: Sequence[str]) -> None:
        """Open or make the file.

        Args:
            path: its place.
            sides: A and B.
            texts: in the order of their places.

        Raises:
            JournalError: it belongs to another comparison, another process uses it, or it cannot be written.
        """
        self.path = path
        self.answers: tuple[dict[int, SideAnswer], dict[int, SideAnswer]] = ({}, {})
        """What is known, by side and place of the text."""
        head = _Head(_digest(texts), (_digest_side(sides[0]), _digest_side(sides[1])))
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

    def _read(self, head: _Head) -> None:
        content = self._file.read()
        good, last = 0, None
        for line in content.split(b"\n")[:-1]:
            try:
                read = _LINE.decode(line)
            except msgspec.DecodeError:
                break  # the machine went down while it was written; what follows is asked again
            if isinstance(read, _Head):
                last = read
            elif last is not None and last.sides[read.side] == head.sides[read.side]:
                self.answers[read.side][read.text] = read.answer
            good += len(line) + 1
        is_torn_head = last is None and msgspec.json.encode(head).startswith(content)
        has_common = last is not None and any(map(str.__eq__, last.sides, head.sides))
        if not is_torn_head and (last is None or last.texts != head.texts or not has_common):
            raise JournalError(
                f"{self.path} is of an earlier comparison of other texts, servers or models, which did not "
                "end; remove it, or name another with --journal"
            )
        self._file.seek(good)
        self._file.truncate()
        if last != head:
            self._file.write(msgspec.json.encode(head) + b"\n")
            self._file.flush()

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
        if not any(self.answers):
            self.remove()  # or a mistyped address would stand in the way of the right one
        self._file.close()


def _digest_side(side: Side) -> str:
    return hashlib.sha256(msgspec.json.encode([side.source, side.model])).hexdigest()


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(b"%d " % len(encoded) + encoded)
    return digest.hexdigest()
