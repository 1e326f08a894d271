"""What was asked and what came back, for each text and side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bulk.errors import TableError

_FORMAT = 1


class SideAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One server's answer to one text."""

    labels: tuple[str, ...] = ()
    """In the server's order; empty if it answered none."""
    scores: tuple[float, ...] = ()
    """Of the labels, between 0 and 1."""
    truncated: bool = False
    seconds: float = 0.0
    """From the request to its answer, without waiting and without attempts that failed."""
    version: str = ""
    """Of the model, where the server tells it."""
    error: str = ""
    """Why there are no labels."""

    @property
    def best(self) -> tuple[str, float]:
        """The label with the highest score, and that score; the first of equal ones.

        Raises:
            ValueError: there are no labels.
        """
        place = max(range(len(self.scores)), key=self.scores.__getitem__)
        return self.labels[place], self.scores[place]

    def score_of(self, label: str) -> float | None:
        """The score of a label; None if there is no such label."""
        return self.scores[self.labels.index(label)] if label in self.labels else None


class Side(msgspec.Struct, frozen=True):
    """Where one side's answers come from."""

    name: str
    """``A`` or ``B``."""
    source: str
    """The URL, or the column of old scores."""
    model: str = ""
    connections: int = 0
    """Requests under way at once."""
    per_minute: float = 0.0
    """Most requests a minute; 0 is no limit."""


class Pair(msgspec.Struct, frozen=True):
    """A text and what both sides answered."""

    row: int
    """Of the table, from 1, without its header; the first of equal texts."""
    text: str
    a: SideAnswer
    b: SideAnswer

    @property
    def is_answered(self) -> bool:
        """Whether both sides have answered."""
        return bool(self.a.labels and self.b.labels)


class Answers(msgspec.Struct, frozen=True):
    """A whole comparison before anything is computed of it."""

    sides: tuple[Side, Side]
    pairs: Sequence[Pair]
    repeated: int = 0
    """Texts that had been asked already, and were not asked again."""
    empty: int = 0
    """Rows without a text."""


class _File(msgspec.Struct):
    format: int
    answers: Answers


def load_answers(path: Path) -> Answers:
    """Read the answers that a report in JSON keeps.

    Raises:
        TableError: it is no such report.
    """
    try:
        read = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise TableError(f"{path} is no report in JSON of an earlier comparison") from error
    if read.format != _FORMAT:
        raise TableError(f"{path} was written by another version of this program; compare again")
    return read.answers


def report_json(answers: Answers, figures: object) -> bytes:
    """Return a report in JSON; ``figures`` are there for readers, `load_answers` ignores them."""
    document = {"format": _FORMAT, "figures": figures, "answers": answers}
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
