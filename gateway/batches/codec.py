"""Requests and outcomes of a batch as the store keeps them: JSON, so that nothing read can be code."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.domain.errors import (
    AiError,
    BackendFailed,
    BackendUnavailable,
    BadInput,
    DeadlineExceeded,
    NoSuchModel,
    Overloaded,
    TritonflareError,
)
from gateway.domain.options import NO_OPTIONS, CallOptions, LongTexts
from gateway.domain.requests import BatchRequest, PairRequest, RerankRequest, TaskRequest, TextRequest
from gateway.domain.service import BatchItem, Classification, Ranking, TaskAnswer
from gateway.domain.tasks import Task
from gateway.domain.validate import printable

_BAD_INPUT = "Bad input: "
_KINDS: dict[int, type[AiError]] = {
    kind.code: kind
    for kind in (BadInput, BackendFailed, BackendUnavailable, DeadlineExceeded, NoSuchModel, Overloaded)
}


class _Stored(msgspec.Struct, array_like=True):
    reference: str | None


class _Text(_Stored, tag="text"):
    text: str


class _Contexts(_Stored, tag="contexts"):
    query: str
    contexts: list[str]
    top_k: int | None


class _Pair(_Stored, tag="pair"):
    query: str
    text: str


class _Options(_Stored, tag="options"):
    """Stands before the requests if there are any."""

    skip_cache: bool | None
    cache_ttl_s: int | None
    long_texts: LongTexts | None = None


class _Failed(_Stored, tag="failed"):
    code: int
    message: str


class _Scores(_Stored, tag="scores"):
    scores: list[tuple[str, float]]
    tokens: int
    truncated: bool
    cached: bool | None
    task: Task
    windows: int = 1


class _Order(_Stored, tag="order"):
    entries: list[tuple[int, float]]
    tokens: int
    truncated: bool
    cached: bool | None


_encode = msgspec.json.Encoder().encode
_inputs = msgspec.json.Decoder(list[_Options | _Text | _Contexts | _Pair | _Failed])
_outcomes = msgspec.json.Decoder(list[_Scores | _Order | _Failed])


def encode_inputs(items: Iterable[BatchRequest], options: CallOptions = NO_OPTIONS) -> bytes:
    """Encode requests, those with a validation error included, and the options of their call."""
    stored = [_stored_request(item.reference, item.request) for item in items]
    kept = (options.skip_cache, options.cache_ttl_s, options.long_texts)
    if any(option is not None for option in kept):
        stored.insert(0, _Options(None, *kept))
    return _encode(stored)


def _stored_request(reference: str | None, request: TaskRequest | AiError) -> _Stored:
    match request:
        case TextRequest(text):
            return _Text(reference, printable(text))
        case RerankRequest(query, contexts, top_k):
            return _Contexts(reference, printable(query), [printable(text) for text in contexts], top_k)
        case PairRequest(query, text):
            return _Pair(reference, printable(query), printable(text))
        case AiError():
            return _failed(reference, request)


def decode_inputs(stored: bytes) -> tuple[list[BatchRequest], CallOptions]:
    """Return what `encode_inputs` was given; nobody waits any more, so there is no timeout."""
    options, requests = NO_OPTIONS, []
    for item in _inputs.decode(stored):
        if isinstance(item, _Options):
            options = CallOptions(item.skip_cache, item.cache_ttl_s, long_texts=item.long_texts)
        else:
            requests.append(BatchRequest(item.reference, _request(item)))
    return requests, options


def _request(stored: _Text | _Contexts | _Pair | _Failed) -> TaskRequest | BadInput:
    match stored:
        case _Text():
            return TextRequest(stored.text)
        case _Contexts():
            return RerankRequest(stored.query, stored.contexts, stored.top_k)
        case _Pair():
            return PairRequest(stored.query, stored.text)
        case _Failed():
            return BadInput(stored.message.removeprefix(_BAD_INPUT))


def failed_items(stored: bytes) -> list[BatchItem]:
    """Return BackendFailed as the outcome of each request of a chunk, which `decode_inputs` may refuse.

    A newer gateway may have stored what this one does not know. Of what is no JSON array, nobody knows how
    many requests it was: it is one.
    """
    try:
        requests = msgspec.json.decode(stored, type=list[object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        requests = [None]
    options = _Options.__struct_config__.tag
    return [
        BatchItem(_reference(request), BackendFailed())
        for request in requests
        if not (isinstance(request, list) and request[:1] == [options])
    ]


def _reference(request: object) -> str | None:
    """Return what stands where `_Stored` has the reference, behind the tag."""
    found = request[1] if isinstance(request, list) and len(request) > 1 else None
    return found if isinstance(found, str) else None


def encode_outcomes(items: Iterable[BatchItem]) -> bytes:
    """Encode outcomes, without what no batch shows: logits, timing, the tokens of each pair."""
    return _encode([_stored_outcome(item.reference, item.outcome) for item in items])


def _stored_outcome(reference: str | None, outcome: TaskAnswer | AiError) -> _Stored:
    match outcome:
        case Classification():
            usage = outcome.tokens, outcome.truncated, outcome.cached
            return _Scores(reference, outcome.scores, *usage, outcome.task, outcome.windows)
        case Ranking():
            usage = outcome.tokens, outcome.truncated, outcome.cached
            return _Order(reference, outcome.entries, *usage)
        case AiError():
            return _failed(reference, outcome)


def decode_outcomes(stored: bytes) -> list[BatchItem]:
    """Return outcomes that show and cost the same as those that `encode_outcomes` was given."""
    return [BatchItem(item.reference, _outcome(item)) for item in _outcomes.decode(stored)]


def _outcome(stored: _Scores | _Order | _Failed) -> TaskAnswer | AiError:
    match stored:
        case _Scores():
            return Classification(
                stored.scores,
                stored.tokens,
                stored.truncated,
                cached=stored.cached,
                task=stored.task,
                windows=stored.windows,
            )
        case _Order():
            # One pair with the sum of all.
            pair = Classification([], stored.tokens, stored.truncated, cached=stored.cached, task=Task.RERANK)
            return Ranking(stored.entries, (pair,) if stored.entries else ())
        case _Failed():
            return _error(stored)


def _failed(reference: str | None, error: AiError) -> _Failed:
    return _Failed(reference, error.code, printable(error.message))


def _error(stored: _Failed) -> AiError:
    """Make the error again, with its own text; one of an unknown code comes from a newer gateway."""
    if stored.code == BadInput.code:
        return BadInput(stored.message.removeprefix(_BAD_INPUT))
    kind = _KINDS.get(stored.code, BackendFailed)
    error = kind.__new__(kind)
    TritonflareError.__init__(error, stored.message)
    return error
