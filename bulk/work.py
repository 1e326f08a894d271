"""What a run does with rows: how they go together into requests, and what becomes of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bulk.tables.table import Record, Value

Values = Sequence[Value]


@dataclass(frozen=True, slots=True)
class Result:
    """What a row gets."""

    values: Values
    """One for each added column, in their order."""
    error: str | None = None
    """Why it has no answer; also among the values."""
    truncated: bool = False
    is_final: bool = True
    """False where the server failed and not the row: another run asks again."""


class Work(Protocol):
    """Groups rows into requests and asks them."""

    added: Sequence[str]
    """Names of the added columns."""

    def add(self, record: Record) -> list[list[Record]]:
        """Take a row, all of whose texts are there; return the requests that are complete now."""

    def flush(self) -> list[list[Record]]:
        """Return what was taken and is in no request yet."""

    async def ask(self, records: Sequence[Record]) -> list[Result]:
        """Ask one request, and more where it does not go through; a result for each row, in order.

        Raises:
            BulkError: no row will get an answer.
        """

    def failed(self, reason: str) -> Result:
        """Return the result of a row that cannot be asked."""

    def restored(self, values: Values) -> Result:
        """Return the result that had these values, from a journal."""
