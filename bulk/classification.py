"""The work of ``tritonflare classify``: rows with a text each get its labels and scores."""

from __future__ import annotations

from collections.abc import Sequence

from bulk.client.classify import Answer, Classifier, Failure
from bulk.client.models import ModelFacts
from bulk.errors import Refused
from bulk.tables.table import Record
from bulk.work import Result, Values

NAMES = ("label", "score", "truncated", "error")
_BYTES_A_TOKEN = 4
"""About, in English; it only decides how much a request holds."""
_MAX_TOKENS = 4096
"""Of a request, as estimated."""
_MAX_TEXTS = 16
_MAX_BYTES = 1 << 17
"""Of a request's texts: most of a longer text is not read, and servers limit bodies."""
_SPECIAL_TOKENS = 2


class ClassifyRows:
    """Sends texts together, as many as a request should hold.

    If the server does not say which of several texts were cut, those that could be are sent alone: a text
    has at most as many tokens as bytes.
    """

    def __init__(self, classifier: Classifier, model: ModelFacts, prefix: str, all_scores: bool) -> None:
        """Prepare.

        Args:
            classifier: asks.
            model: its labels, and what a request may hold.
            prefix: of the added columns' names.
            all_scores: whether each label gets a column with its score.
        """
        label, score, truncated, error = NAMES
        each = [f"score_{name}" for name in model.labels] if all_scores else []
        self.added: Sequence[str] = [prefix + name for name in (label, score, *each, truncated, error)]
        self._classifier = classifier
        self._labels = model.labels
        self._all_scores = all_scores
        self._max_texts = min(model.max_texts, _MAX_TEXTS)
        self._max_tokens = model.max_tokens
        self._uncut_bytes = model.max_tokens - _SPECIAL_TOKENS
        self._waiting: list[Record] = []
        self._bytes, self._tokens = 0, 0

    def add(self, record: Record) -> list[list[Record]]:
        """Take a row; see `Work.add`."""
        size = len((record.texts[0] or "").encode(errors="replace"))
        if size > self._uncut_bytes and not self._classifier.tells_cut:
            return [[record]]
        tokens = min(size // _BYTES_A_TOKEN, self._max_tokens)
        complete = []
        if self._waiting and (self._tokens + tokens > _MAX_TOKENS or self._bytes + size > _MAX_BYTES):
            complete += self.flush()
        self._waiting.append(record)
        self._bytes += size
        self._tokens += tokens
        if len(self._waiting) >= self._max_texts:
            complete += self.flush()
        return complete

    def flush(self) -> list[list[Record]]:
        """Return the rest; see `Work.flush`."""
        rest, self._waiting, self._bytes, self._tokens = self._waiting, [], 0, 0
        return [rest] if rest else []

    async def ask(self, records: Sequence[Record]) -> list[Result]:
        """Classify; see `Work.ask`.

        Raises:
            Refused: an answer has other labels than the model had at the beginning.
        """
        answers = await self._classifier([record.texts[0] or "" for record in records])
        return [self._result(answer) for answer in answers]

    def failed(self, reason: str, is_final: bool = True) -> Result:
        """Return empty values and the reason."""
        each = len(self._labels) if self._all_scores else 0
        return Result([None, None, *[None] * each, None, reason], error=reason, is_final=is_final)

    def restored(self, values: Values) -> Result:
        """Return the result that had these values."""
        error = values[-1]
        return Result(values, error=None if error is None else str(error), truncated=values[-2] is True)

    def _result(self, answer: Answer) -> Result:
        if isinstance(answer, Failure):
            return self.failed(answer.reason, answer.is_final)
        if answer.labels != self._labels:
            raise Refused(
                "the model was replaced by one with other labels while the file was classified; "
                "delete the journal to begin anew"
            )
        best = answer.best
        each = answer.scores if self._all_scores else ()
        values = [answer.labels[best], answer.scores[best], *each, answer.truncated, None]
        return Result(values, truncated=answer.truncated)
