"""Texts in, scores out: requests with several texts, taken apart where one of them is in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from bulk.client.http import ApiClient, ErrorEntry, Reply
from bulk.errors import Refused

ARRAYS = "?result_shape=array"
"""Whatever the server's default is."""
_QUERY = ARRAYS + "&long=cut"
_RETRYABLE = frozenset((3007, 3021, 3040, 3050, 8007))
"""Codes of an item whose text may be answered another time, or alone."""


class Score(msgspec.Struct, frozen=True):
    """One label's."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Scores:
    """A text's scores, in the model's order of labels."""

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    """Each between 0 and 1, exactly as answered."""
    truncated: bool

    @property
    def best(self) -> int:
        """The place of the highest score; the first of equal ones."""
        return max(range(len(self.scores)), key=self.scores.__getitem__)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a text has no scores."""

    reason: str
    is_final: bool = True
    """False where the server failed, and not the text."""


Answer = Scores | Failure


class _Item(msgspec.Struct):
    success: bool
    result: msgspec.Raw = msgspec.Raw(b"[]")
    """Of a failed item, an empty object."""
    errors: list[ErrorEntry] = []


class _Responses(msgspec.Struct):
    responses: list[_Item]


class _Batch(msgspec.Struct):
    result: _Responses


class _Single(msgspec.Struct):
    result: list[Score]


_BATCHES = msgspec.json.Decoder(_Batch)
_SINGLES = msgspec.json.Decoder(_Single)
_SCORES = msgspec.json.Decoder(list[Score])


class Classifier:
    """Classifies texts with one model."""

    def __init__(self, client: ApiClient, model: str, version: str = "") -> None:
        """Prepare.

        Args:
            client: sends.
            model: its name.
            version: what answers must have as their model's version, where they tell one; empty for any.
        """
        self._client = client
        self._model = model
        self._version = version
        self.tells_cut = True
        """Whether the server says which of several texts were cut; true until it did not."""

    async def __call__(self, texts: Sequence[str]) -> list[Answer]:
        """Classify texts in one request, and in more where it does not go through.

        A request that fails as a whole is halved until the text that is the reason stands alone. A request
        with several texts of which some were cut is halved too, if its answer does not say which.

        Args:
            texts: none of them empty; one is sent as ``text``, several as ``requests``.

        Returns:
            An answer for each, in order.

        Raises:
            Refused: another version of the model answered.
            ServerError: see `ApiClient.send`.
        """
        if len(texts) == 1:
            return [await self._single(texts[0])]
        requests = [{"text": text} for text in texts]
        reply = await self._client.run(self._model, {"requests": requests}, query=_QUERY)
        reply.check_version(self._version)
        items = _items(reply, len(texts))
        cut = reply.cut(len(texts))
        self.tells_cut &= cut is not None
        if items is None or cut is None:
            middle = len(texts) // 2
            return [*await self(texts[:middle]), *await self(texts[middle:])]
        answers: list[Answer] = []
        for text, item, is_cut in zip(texts, items, cut, strict=True):
            if item.success:
                answers.append(_scores(_SCORES.decode(item.result), truncated=is_cut))
            elif item.errors and item.errors[0].code in _RETRYABLE:
                answers.append(await self._single(text))
            else:
                answers.append(Failure(item.errors[0].reason if item.errors else "no reason was given"))
        return answers

    async def labels(self) -> tuple[str, ...]:
        """Return the model's labels, from the answer to a word, for a server that does not list them.

        Raises:
            ServerError: see `ApiClient.send`; also if there is no answer.
        """
        answer = await self._single("a")
        if isinstance(answer, Failure):
            raise Refused(f"{self._model} does not classify: {answer.reason}")
        return answer.labels

    async def _single(self, text: str) -> Answer:
        reply = await self._client.run(self._model, {"text": text}, query=_QUERY)
        reply.check_version(self._version)
        return read_single(reply)


def read_single(reply: Reply) -> Answer:
    """Return what a reply to one text says; it was asked with `ARRAYS`."""
    if not reply.is_ok:
        return Failure(reply.error.reason, is_final=not reply.is_servers_fault)
    try:
        return _scores(_SINGLES.decode(reply.body).result, truncated=reply.truncated)
    except msgspec.DecodeError:
        return Failure("the answer is not that of a classifier")


def _items(reply: Reply, expected: int) -> list[_Item] | None:
    """Return the items of a batch; None if there is not one for each text."""
    if not reply.is_ok:
        return None
    try:
        items = _BATCHES.decode(reply.body).result.responses
    except msgspec.DecodeError:
        return None
    return items if len(items) == expected else None


def _scores(entries: list[Score], truncated: bool) -> Answer:
    if not entries:
        return Failure("the answer has no labels")
    return Scores(tuple(entry.label for entry in entries), tuple(entry.score for entry in entries), truncated)
