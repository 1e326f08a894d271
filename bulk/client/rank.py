"""A query and documents in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from bulk.client.classify import Failure
from bulk.client.http import ApiClient


@dataclass(frozen=True, slots=True)
class Relevance:
    """How well a document answers its query."""

    score: float
    """Between 0 and 1; the sigmoid is applied."""
    truncated: bool


class _Entry(msgspec.Struct):
    id: int
    score: float


class _Ranking(msgspec.Struct):
    response: list[_Entry]


class _Answer(msgspec.Struct):
    result: _Ranking


_ANSWERS = msgspec.json.Decoder(_Answer)


class Ranker:
    """Scores documents with one model."""

    def __init__(self, client: ApiClient, model: str, version: str = "") -> None:
        """Prepare; see `Classifier`."""
        self._client = client
        self._model = model
        self._version = version
        self.tells_cut = True
        """See `Classifier`."""

    async def __call__(self, query: str, documents: Sequence[str]) -> list[Relevance | Failure]:
        """Score documents in one request, and in more where it does not go through.

        It is halved until the document that is the reason stands alone: a request that fails as a whole,
        and one of which some documents were cut, if its answer does not say which.

        Args:
            query: not empty.
            documents: none of them empty.

        Returns:
            A score for each document, in their order.

        Raises:
            Refused: another version of the model answered.
            ServerError: see `ApiClient.send`.
        """
        body = {"query": query, "contexts": [{"text": text} for text in documents]}
        reply = await self._client.run(self._model, body)
        reply.check_version(self._version)
        scores = _scores(reply.body, len(documents)) if reply.is_ok else None
        cut = reply.cut(len(documents))
        self.tells_cut &= cut is not None
        if len(documents) > 1 and (scores is None or cut is None):
            middle = len(documents) // 2
            return [*await self(query, documents[:middle]), *await self(query, documents[middle:])]
        if not reply.is_ok:
            return [Failure(reply.error.reason, is_final=not reply.is_servers_fault)]
        if scores is None or cut is None:
            return [Failure("the answer is not that of a reranker")]
        return [Relevance(score, is_cut) for score, is_cut in zip(scores, cut, strict=True)]


def _scores(body: bytes, expected: int) -> list[float] | None:
    """Return the scores in the order of the documents; None if there is not one for each."""
    try:
        entries = _ANSWERS.decode(body).result.response
    except msgspec.DecodeError:
        return None
    scores = {entry.id: entry.score for entry in entries}
    if sorted(scores) != list(range(expected)):
        return None
    return [scores[place] for place in range(expected)]
