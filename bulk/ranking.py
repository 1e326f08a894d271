"""The work of ``tritonflare rerank``: rows with a query and a document each get a score."""

from __future__ import annotations

from collections.abc import Sequence

from bulk.client.classify import Failure
from bulk.client.models import ModelFacts
from bulk.client.rank import Ranker
from bulk.tables.table import Record
from bulk.work import Result, Values

NAMES = ("score", "truncated", "error")
_MAX_DOCUMENTS = 16
_MAX_BYTES = 1 << 14
"""Of a request's documents, unless it has one alone."""
_SPECIAL_TOKENS = 4


class RankRows:
    """Sends rows that follow each other with the same query together, as many as a request should hold.

    If the server does not say which of several documents were cut, pairs that could be are sent alone: a
    pair has at most as many tokens as bytes.
    """

    def __init__(self, ranker: Ranker, model: ModelFacts, prefix: str) -> None:
        self.added: Sequence[str] = [prefix + name for name in NAMES]
        self._ranker = ranker
        self._max_documents = min(model.max_contexts, _MAX_DOCUMENTS)
        self._uncut_bytes = model.max_tokens - _SPECIAL_TOKENS
        self._waiting: list[Record] = []
        self._bytes = 0

    def add(self, record: Record) -> list[list[Record]]:
        """Take a row; see `Work.add`."""
        size = sum(len((text or "").encode(errors="replace")) for text in record.texts)
        if size > self._uncut_bytes and not self._ranker.tells_cut:
            return [[record]]
        complete = []
        if self._waiting and (
            self._waiting[0].texts[0] != record.texts[0] or self._bytes + size > _MAX_BYTES
        ):
            complete += self.flush()
        self._waiting.append(record)
        self._bytes += size
        if len(self._waiting) >= self._max_documents:
            complete += self.flush()
        return complete

    def flush(self) -> list[list[Record]]:
        """Return the rest; see `Work.flush`."""
        rest, self._waiting, self._bytes = self._waiting, [], 0
        return [rest] if rest else []

    async def ask(self, records: Sequence[Record]) -> list[Result]:
        """Score; see `Work.ask`."""
        documents = [record.texts[1] or "" for record in records]
        answers = await self._ranker(records[0].texts[0] or "", documents)
        return [
            self.failed(answer.reason, answer.is_final)
            if isinstance(answer, Failure)
            else Result([answer.score, answer.truncated, None], truncated=answer.truncated)
            for answer in answers
        ]

    def failed(self, reason: str, is_final: bool = True) -> Result:
        """Return empty values and the reason."""
        return Result([None, None, reason], error=reason, is_final=is_final)

    def restored(self, values: Values) -> Result:
        """Return the result that had these values."""
        error = values[-1]
        return Result(values, error=None if error is None else str(error), truncated=values[-2] is True)
