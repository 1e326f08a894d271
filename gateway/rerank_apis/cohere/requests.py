"""Requests of Cohere's and Jina's ``rerank``, which differ in their answers only."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from gateway.domain.errors import BadInput, EmptyInput, MalformedBody
from gateway.domain.requests import InputLimits, RerankRequest
from gateway.json_body import decode_json


class _Document(msgspec.Struct):
    text: str


class _Rerank(msgspec.Struct):
    query: str
    documents: list[str | _Document]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None


class _Keys(msgspec.Struct):
    documents: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class RerankBody:
    """The body of a request."""

    model: str | None
    request: RerankRequest
    returns_documents: bool


def has_documents(body: bytes) -> bool:
    """Tell whether a body has the key ``documents``, by which it differs from one for TEI."""
    try:
        return decode_json(body, _Keys).documents is not msgspec.UNSET
    except (BadInput, MalformedBody):
        return False


def read_rerank(body: bytes, limits: InputLimits, *, returns_documents: bool = False) -> RerankBody:
    """Read a request; ``top_n`` may be larger than the number of documents, and a document may be empty.

    Args:
        body: of the request.
        limits: how many documents there may be.
        returns_documents: without ``return_documents``, whether the answer repeats them.

    Raises:
        MalformedBody, BadInput: see `decode_json`; there are too many documents, ``top_n`` is below
            1, or ``rank_fields`` has anything but ``text``.
        EmptyInput: the query is empty, or there is no document.
    """
    given = decode_json(body, _Rerank)
    if not given.query:
        raise EmptyInput("'query' must not be empty")
    if not given.documents:
        raise EmptyInput("'documents' must not be empty")
    count, most = len(given.documents), limits.max_contexts
    if count > most:
        raise BadInput(f"'documents' has {count} elements; {most} are allowed")
    if given.top_n is not None and given.top_n < 1:
        raise BadInput("'top_n' must be at least 1")
    if given.rank_fields not in (None, [], ["text"]):
        raise BadInput("'rank_fields' is not supported; a document is a string or an object with 'text'")
    texts = [document if isinstance(document, str) else document.text for document in given.documents]
    if given.return_documents is not None:
        returns_documents = given.return_documents
    return RerankBody(given.model, RerankRequest(given.query, texts, given.top_n), returns_documents)
