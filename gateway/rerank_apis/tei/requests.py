"""Requests of TEI, version 1.9.3, whose source decides what the names of fields and their defaults are.

TEI cuts a text that is too long unless ``truncate`` is false (so do we), and from its left end where
``truncation_direction`` says so (we do not).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gateway.domain.errors import BadInput, EmptyInput
from gateway.domain.requests import InputLimits, PairRequest, RerankRequest, TextRequest
from gateway.domain.tasks import Task
from gateway.json_body import decode_json

_RIGHT = ("right", "Right")


class _Options(msgspec.Struct):
    model: str | None = None
    """Not of TEI, which serves one model."""
    truncate: bool | None = None
    truncation_direction: str = "right"
    raw_scores: bool = False


class _Rerank(_Options, kw_only=True):
    query: str
    texts: list[str]
    return_text: bool = False


class _Predict(_Options, kw_only=True):
    inputs: str | list[str | list[str]]


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How a request wants to be answered."""

    raw_scores: bool
    """Logits in place of scores."""
    may_truncate: bool
    """Whether a text that is too long is cut; otherwise it is an error."""


@dataclass(frozen=True, slots=True)
class RerankBody:
    """The body of ``/rerank``."""

    model: str | None
    request: RerankRequest
    options: AnswerOptions
    returns_text: bool


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """The body of ``/predict``."""

    model: str | None
    task: Task
    """Pairs are for rerankers, single texts for classifiers."""
    requests: Sequence[TextRequest | PairRequest]
    is_batch: bool
    """Whether the answer is a list of answers, even to one text."""
    options: AnswerOptions


def read_rerank(body: bytes, limits: InputLimits) -> RerankBody:
    """Read the body of ``/rerank``; a text may be empty, because TEI scores those as well.

    Raises:
        MalformedBody, BadInput: see `decode_json`; there are too many texts, or ``truncation_direction`` is
            not ours.
        EmptyInput: the query is empty, or there is no text.
    """
    given = decode_json(body, _Rerank)
    options = _options(given)
    if not given.query:
        raise EmptyInput("`query` must not be empty")
    if not given.texts:
        raise EmptyInput("`texts` must not be empty")
    _check_count("texts", len(given.texts), limits.max_contexts)
    request = RerankRequest(given.query, given.texts)
    return RerankBody(given.model, request, options, given.return_text)


def read_predict(body: bytes, limits: InputLimits) -> PredictRequest:
    """Read the body of ``/predict``.

    ``inputs`` is a text, a pair ``[text, text]``, or a batch of both: ``[[text], [text, text], …]``.

    Raises:
        MalformedBody, BadInput: see `decode_json`; ``inputs`` has another form, has too many texts, or mixes
            texts and pairs; or ``truncation_direction`` is not ours.
        EmptyInput: a text is empty, or there is none.
    """
    given = decode_json(body, _Predict)
    options = _options(given)
    sequences, is_batch = _sequences(given.inputs)
    _check_count("inputs", len(sequences), limits.max_batch_texts)
    requests = [_request(sequence) for sequence in sequences]
    tasks = {Task.RERANK if isinstance(request, PairRequest) else Task.CLASSIFICATION for request in requests}
    if len(tasks) != 1:
        raise BadInput("`inputs` must be texts for a classifier or pairs for a reranker, not both")
    return PredictRequest(given.model, tasks.pop(), requests, is_batch, options)


def _options(given: _Options) -> AnswerOptions:
    # Not a Literal: what is wrong must not come back in the error.
    if given.truncation_direction not in _RIGHT:
        raise BadInput("`truncation_direction` must be right: texts are cut at their end")
    return AnswerOptions(given.raw_scores, given.truncate is not False)


def _check_count(name: str, count: int, most: int) -> None:
    if count > most:
        raise BadInput(f"`{name}` has {count} elements; {most} are allowed")


def _sequences(inputs: str | list[str | list[str]]) -> tuple[list[list[str]], bool]:
    """Return each text or pair as a list, and whether they are a batch."""
    if isinstance(inputs, str):
        return [[inputs]], False
    if not inputs:
        raise EmptyInput("`inputs` must not be empty")
    texts = [item for item in inputs if isinstance(item, str)]
    if not texts:
        return [item for item in inputs if isinstance(item, list)], True
    if len(texts) != len(inputs) or len(texts) > 2:
        raise BadInput("`inputs` must be a text, a pair [text, text], or a batch [[text], [text], …]")
    return [texts], False


def _request(sequence: list[str]) -> TextRequest | PairRequest:
    if not any(sequence):
        raise EmptyInput("`inputs` must not be empty")
    match sequence:
        case [text]:
            return TextRequest(text)
        case [query, text]:
            return PairRequest(query, text)
        case _:
            raise BadInput("`inputs` must have one text or a pair in each element")
