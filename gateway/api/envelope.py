"""The v4 envelope: the one place that renders answers and errors for REST."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from uuid import uuid4

import msgspec

from gateway.api.results import (
    answer_headers,
    batch_headers,
    batch_result,
    error_entry,
    pending_headers,
    pending_result,
    result_of,
)
from gateway.batches.store import PendingBatch
from gateway.domain.errors import AiError, FrontError, MethodNotSupported, TritonflareError
from gateway.domain.service import BatchItem, TaskAnswer
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


def answer(answered: TaskAnswer, shape: ResultShape, ai_request_id: str) -> Response:
    """Render the answer to one request, with its price and whether a text was cut in the headers."""
    return success(result_of(answered, shape), answer_headers(answered, ai_request_id))


def batch(
    items: Sequence[BatchItem], shape: ResultShape, ai_request_id: str, batch_id: str | None = None
) -> Response:
    """Render a batch as a finished one.

    Args:
        items: with their outcomes.
        shape: of each classification.
        ai_request_id: of this request.
        batch_id: of a batch that is fetched; its errors name it, so that every poll shows the same.
    """
    headers = batch_headers(items, ai_request_id)
    return success(batch_result(items, shape, batch_id or ai_request_id), headers)


def pending_batch(batch: PendingBatch, ai_request_id: str) -> Response:
    """Render a batch that has no result yet."""
    return success(pending_result(batch), pending_headers(ai_request_id))


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
        "errors": [error_entry(error, ai_request_id)],
        "success": False,
        "result": {},
        "messages": [],
    }
    return Response(error.status, _encode(body), headers=[(b"cf-ai-req-id", ai_request_id.encode())])


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
