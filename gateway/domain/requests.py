"""What a request asks of a model, read from its JSON.

Validation follows the JSON Schemas of the models at Workers AI, in the order of their properties: a wrong
value is reported before a missing one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.errors import AiError, BadInput, without_frames
from gateway.domain.inputs import ModelInput, Pair
from gateway.domain.options import NO_OPTIONS, CallOptions
from gateway.domain.tasks import Task
from gateway.domain.validate import integer, is_binary, printable, string, types_of, utf8


@dataclass(frozen=True, slots=True)
class TextRequest:
    """Classify a text."""

    text: str

    def inputs(self) -> Sequence[ModelInput]:
        """Return what the model reads."""
        return (utf8(self.text),)


@dataclass(frozen=True, slots=True)
class PairRequest:
    """Score one pair."""

    query: str
    text: str

    def inputs(self) -> Sequence[ModelInput]:
        """Return what the model reads."""
        return (Pair(utf8(self.query), utf8(self.text)),)


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """Sort contexts by their relevance to a query."""

    query: str
    contexts: Sequence[str]
    top_k: int | None = None
    """How many of the best to return; None for all."""

    def inputs(self) -> Sequence[ModelInput]:
        """Return what the model reads: a pair for each context."""
        query = utf8(self.query)
        return [Pair(query, utf8(context)) for context in self.contexts]


TaskRequest = TextRequest | PairRequest | RerankRequest


def size_of(request: TaskRequest | AiError) -> int:
    """Return the texts or pairs that a request counts as; one without any, or with an error, is one."""
    return max(1, len(request.contexts)) if isinstance(request, RerankRequest) else 1


@dataclass(frozen=True, slots=True)
class SingleCall:
    """A call with one request."""

    request: TaskRequest | BadInput
    """Or its validation error."""
    options: CallOptions = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One request of a batch."""

    reference: str | None
    """The caller's name for it."""
    request: TaskRequest | BadInput


@dataclass(frozen=True, slots=True)
class BatchCall:
    """A call with several requests."""

    items: Sequence[BatchRequest]
    is_queued: bool = False
    """To be fetched later, as opposed to answered at once in the shape of a finished batch."""
    options: CallOptions = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class PollCall:
    """A call for the result of a queued batch."""

    batch_id: str


Call = SingleCall | BatchCall


@dataclass(frozen=True, slots=True)
class InputLimits:
    """How much one call may ask for; see the settings of the same names."""

    max_batch_texts: int
    max_contexts: int
    max_queued_batch_texts: int | None = None
    """None if batches cannot be queued; then they are all answered at once."""

    @property
    def can_queue(self) -> bool:
        """Whether batches can be queued."""
        return self.max_queued_batch_texts is not None

    def most_texts(self, *, queued: bool) -> int:
        """Return how many texts a batch may have."""
        if queued and self.max_queued_batch_texts is not None:
            return self.max_queued_batch_texts
        return self.max_batch_texts


def read_poll(payload: object, *, queued: bool) -> PollCall | None:
    """Return what a call polls for; None if it asks for something else.

    Args:
        payload: the inputs. Beside ``queueRequest``, ``request_id`` counts more than a ``text``: the official
            Python SDK cannot leave ``text`` out.
        queued: whether the caller asked for ``queueRequest``, which is not needed.

    Raises:
        BadInput: ``request_id`` is not a string.
    """
    if not isinstance(payload, dict) or "request_id" not in payload or "requests" in payload:
        return None
    if not queued and any(key in payload for key in _KEY.values()):
        return None
    return PollCall(string(payload["request_id"], "/request_id"))


def read_call(payload: object, task: Task, limits: InputLimits, *, queued: bool) -> Call:
    """Read the request or the requests of a call.

    Args:
        payload: the inputs. A key ``requests`` makes it a batch, even beside a ``text``: the official
            Python SDK cannot leave ``text`` out.
        task: of the model.
        limits: how many requests and contexts there may be.
        queued: whether the caller asked for ``queueRequest``; one request is then a batch of one. It is
            queued if batches can be.

    Raises:
        BadInput: no inputs, too many, or not an array. The error of a single request takes its place, so that
            the number of requests is known in any case.
    """
    given = payload if isinstance(payload, dict) else {}
    is_queued = queued and limits.can_queue
    if "requests" in given:
        inputs = _batch_inputs(given["requests"], limits.most_texts(queued=is_queued))
        return _within(limits, BatchCall([_batch_request(item, task, limits) for item in inputs], is_queued))
    is_request = _KEY[task] in given
    if is_request and queued:
        return BatchCall([_batch_request(payload, task, limits)], is_queued)
    if not is_request and queued:
        raise BadInput("Error: required properties at '/' are 'requests'")
    return read_single(payload, task, limits)


_KEY = {Task.CLASSIFICATION: "text", Task.RERANK: "query"}
"""By which a single request is recognised."""


def read_single(payload: object, task: Task, limits: InputLimits) -> SingleCall:
    """Read one request, or its validation error."""
    try:
        return SingleCall(read_request(payload, task, limits))
    except BadInput as exc:
        return SingleCall(without_frames(exc))


def read_request(payload: object, task: Task, limits: InputLimits) -> TaskRequest:
    """Read one request to a model of a task.

    Raises:
        BadInput: with the validator's message.
    """
    if task is Task.RERANK:
        return rerank_request(payload, limits.max_contexts)
    return TextRequest(text_of(payload))


def text_of(payload: object) -> str:
    """Return the ``text`` of a classification request; other keys are ignored.

    The schema is ``{"type": "object", "properties": {"text": {"type": "string", "minLength": 1}},
    "required": ["text"]}``. Whitespace alone is valid; length counts UTF-16 units, which for a minimum
    of 1 is any character at all.

    Raises:
        BadInput: with the validator's message.
    """
    if not isinstance(payload, dict) or "text" not in payload:
        raise BadInput("Error: required properties at '/' are 'text'")
    return _text(payload["text"], "/text")


def rerank_request(payload: object, max_contexts: int) -> RerankRequest:
    """Read a request to a reranker; other keys are ignored.

    The schema has the properties ``query`` (string, ``minLength`` 1), ``top_k`` (integer, ``minimum`` 1) and
    ``contexts`` (array of objects with ``text``, a string of ``minLength`` 1); ``query`` and ``contexts`` are
    required. An empty array is valid. The validator lets some contexts without a text pass; they are refused
    after it, in its manner.

    Raises:
        BadInput: with the validator's message; or there are more than ``max_contexts``, or one has no text.
    """
    given = payload if isinstance(payload, dict) else {}
    query = _text(given["query"], "/query") if "query" in given else None
    top_k = integer(given["top_k"], "/top_k", 1) if "top_k" in given else None
    if not _has_contexts(given.get("contexts")) or query is None:
        raise BadInput("Error: required properties at '/' are 'query,contexts'")
    return RerankRequest(query, _contexts(given["contexts"], max_contexts), top_k)


def _has_contexts(value: object) -> bool:
    """Check contexts as the validator does; return whether it counts the property as present.

    It checks the texts that it finds and skips what else there is. Where it finds none, ``contexts`` is
    missing, whatever is in its place; unless that is an array of numbers and strings alone, which it takes
    for binary data.

    Raises:
        BadInput: with the validator's message.
    """
    if isinstance(value, str):
        raise BadInput(f"Error: Type mismatch of '/contexts', 'array' not in {types_of(value)}")
    if is_binary(value):
        return True
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    texts = [(place, item["text"]) for place, item in items if isinstance(item, dict) and "text" in item]
    for place, text in texts:
        _text(text, f"/contexts/{place}/text")
    return bool(texts)


def _contexts(value: object, max_contexts: int) -> list[str]:
    """Return contexts that `_has_contexts` lets pass."""
    if not isinstance(value, list):
        raise BadInput(f"Error: Type mismatch of '/contexts', 'array' not in {types_of(value)}")
    if len(value) > max_contexts:
        raise BadInput(f"Error: Length of '/contexts' must be <= {max_contexts}")
    return [_context(item, f"/contexts/{place}") for place, item in enumerate(value)]


def _context(item: object, path: str) -> str:
    if not isinstance(item, dict):
        raise BadInput(f"Error: Type mismatch of '{path}', 'object' not in {types_of(item)}")
    if "text" not in item:
        raise BadInput(f"Error: required properties at '{path}' are 'text'")
    return string(item["text"], f"{path}/text")


def _text(value: object, path: str) -> str:
    text = string(value, path)
    if not text:
        raise BadInput(f"Error: Length of '{path}' must be >= 1 not met")
    return text


def _batch_inputs(requests: object, max_batch_texts: int) -> list[object]:
    if not isinstance(requests, list):
        raise BadInput(f"Error: Type mismatch of '/requests', 'array' not in {types_of(requests)}")
    if not requests:
        raise BadInput("Error: Length of '/requests' must be >= 1 not met")
    if len(requests) > max_batch_texts:
        raise BadInput(f"Error: Length of '/requests' must be <= {max_batch_texts}")
    return requests


def _batch_request(item: object, task: Task, limits: InputLimits) -> BatchRequest:
    reference = None
    try:
        reference = reference_of(item)
        return BatchRequest(reference, read_request(item, task, limits))
    except BadInput as exc:
        return BatchRequest(reference, without_frames(exc))


def reference_of(item: object) -> str | None:
    """Return the ``external_reference`` of one request of a batch.

    Raises:
        BadInput: it is neither a string nor null.
    """
    reference = item.get("external_reference") if isinstance(item, dict) else None
    return None if reference is None else printable(string(reference, "/external_reference"))


def _within(limits: InputLimits, call: BatchCall) -> BatchCall:
    """Return the call if its pairs are no more than one call may have.

    Raises:
        BadInput: they are more.
    """
    pairs = sum(len(item.request.contexts) for item in call.items if isinstance(item.request, RerankRequest))
    most = max(limits.most_texts(queued=call.is_queued), limits.max_contexts)
    if pairs > most:
        raise BadInput(f"Error: '/requests' have {pairs} contexts, all together must be <= {most}")
    return call
