"""The v4 envelope: the one place that renders answers and errors for REST."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from uuid import uuid4

import msgspec

from gateway.domain.errors import AiError, FrontError, MethodNotSupported, TritonflareError
from gateway.domain.scores import Score, best_first
from gateway.domain.service import BatchItem, Classification
from gateway.domain.validate import ResultShape
from gateway.server.message import Header, Response

_encode = msgspec.json.Encoder().encode


def success(
    result: object,
    headers: Sequence[Header] = (),
    *,
    messages: Sequence[object] = (),
    extra: Mapping[str, object] = MappingProxyType({}),
) -> Response:
    """Wrap a result; the keys are in the order of the live API, ``extra`` ones come last."""
    body = {"result": result, "success": True, "errors": [], "messages": messages, **extra}
    return Response(200, _encode(body), headers=list(headers))


def classification(answer: Classification, shape: ResultShape, ai_request_id: str) -> Response:
    """Render one classification, with its price and whether the text was cut in the headers."""
    return success(shaped(answer.scores, shape), answer_headers(answer, ai_request_id))


def answer_headers(answer: Classification, ai_request_id: str) -> list[Header]:
    """Name the request, its price, and whether the text was cut and the answer cached."""
    return _usage_headers(ai_request_id, answer.neurons, answer.truncated, answer.cached)


def batch(items: Sequence[BatchItem], shape: ResultShape, ai_request_id: str) -> Response:
    """Render a batch as a finished one."""
    return success(batch_result(items, shape, ai_request_id), batch_headers(items, ai_request_id))


def batch_headers(items: Sequence[BatchItem], ai_request_id: str) -> list[Header]:
    """Name the request, the price of all of its texts, whether any was cut and all were cached."""
    answers = [item.outcome for item in items if isinstance(item.outcome, Classification)]
    neurons = sum(answer.neurons for answer in answers)
    truncated = any(answer.truncated for answer in answers)
    cached = None
    if any(answer.cached is not None for answer in answers):
        cached = len(answers) == len(items) and all(answer.cached for answer in answers)
    return _usage_headers(ai_request_id, neurons, truncated, cached)


def batch_result(items: Sequence[BatchItem], shape: ResultShape, ai_request_id: str) -> dict[str, object]:
    """Return the result of a finished batch: one response an item, in order, and the tokens read."""
    tokens = sum(item.outcome.tokens for item in items if isinstance(item.outcome, Classification))
    return {
        "responses": [_response(place, item, shape, ai_request_id) for place, item in enumerate(items)],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
    }


def _response(place: int, item: BatchItem, shape: ResultShape, ai_request_id: str) -> dict[str, object]:
    """Render one item; one that failed looks like the answer to a single text that failed."""
    response: dict[str, object] = {"id": place, "result": {}, "success": False}
    if isinstance(item.outcome, Classification):
        response |= {"result": shaped(item.outcome.scores, shape), "success": True}
    else:
        response["errors"] = [_ai_entry(item.outcome, ai_request_id)]
    return response | {"external_reference": item.reference}


def _usage_headers(ai_request_id: str, neurons: float, truncated: bool, cached: bool | None) -> list[Header]:
    headers = [
        (b"cf-ai-req-id", ai_request_id.encode()),
        (b"cf-ai-neurons", b"%.2f" % neurons),
    ]
    if truncated:
        headers.append((b"x-truncated", b"true"))
    if cached is not None:
        headers.append((b"cf-aig-cache-status", b"HIT" if cached else b"MISS"))
    return headers


def shaped(scores: Sequence[Score], shape: ResultShape) -> object:
    """Return the scores of one text as JSON values."""
    return {"items": entries(best_first(scores))} if shape == "items" else entries(scores)


def entries(scores: Sequence[Score]) -> list[dict[str, object]]:
    """Return the scores as the API lists them, in the given order."""
    return [{"label": label, "score": score} for label, score in scores]


def failure(error: TritonflareError, ai_request_id: str | None) -> Response:
    """Render an error in the shape of the layer that raised it."""
    if isinstance(error, AiError):
        response = _ai_failure(error, ai_request_id or str(uuid4()))
    else:
        response = _front_failure(error)
    response.code = error.code
    response.headers += retry_headers(error)
    if isinstance(error, MethodNotSupported):
        response.headers.append((b"allow", ", ".join(error.allowed).encode()))
    return response


def _ai_failure(error: AiError, ai_request_id: str) -> Response:
    body = {
        "errors": [_ai_entry(error, ai_request_id)],
        "success": False,
        "result": {},
        "messages": [],
    }
    return Response(error.status, _encode(body), headers=[(b"cf-ai-req-id", ai_request_id.encode())])


def _ai_entry(error: AiError, ai_request_id: str) -> dict[str, object]:
    return {"message": f"AiError: {error.message} ({ai_request_id})", "code": error.code}


def _front_failure(error: TritonflareError) -> Response:
    entry: dict[str, object] = {"code": error.code, "message": error.message}
    if isinstance(error, FrontError) and error.chain:
        entry["error_chain"] = [{"code": code, "message": message} for code, message in error.chain]
    body = {"result": None, "success": False, "errors": [entry], "messages": []}
    return Response(error.status, _encode(body))


def retry_headers(error: TritonflareError) -> list[Header]:
    """Tell the official SDKs, which retry every 5xx, whether and when it makes sense."""
    if error.retry_after_s is not None:
        return [
            (b"retry-after", b"%d" % math.ceil(error.retry_after_s)),
            (b"retry-after-ms", b"%d" % math.ceil(1000 * error.retry_after_s)),
        ]
    if error.status >= 500 and not error.retryable:
        return [(b"x-should-retry", b"false")]
    return []
