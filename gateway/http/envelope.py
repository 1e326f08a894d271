"""The v4 envelope: the one place that knows how answers and errors look on the REST wire."""

from __future__ import annotations

import math
from collections.abc import Sequence
from uuid import uuid4

import msgspec

from gateway.domain.errors import AiError, FrontError, MethodNotSupported, TritonflareError
from gateway.domain.scores import Score, best_first
from gateway.domain.service import Classification
from gateway.domain.validate import ResultShape
from gateway.http.asgi import Header, Response

_encode = msgspec.json.Encoder().encode


def success(result: object, headers: list[Header]) -> Response:
    """Wrap a result; the keys are in the order of the live API."""
    body = _encode({"result": result, "success": True, "errors": [], "messages": []})
    return Response(200, body, headers=headers)


def classification(answer: Classification, shape: ResultShape, ai_request_id: str) -> Response:
    """Render one classification, with its price and whether the text was cut in the headers."""
    headers = answer_headers(answer, ai_request_id)
    if shape == "items":
        return success({"items": entries(best_first(answer.scores))}, headers)
    return success(entries(answer.scores), headers)


def answer_headers(answer: Classification, ai_request_id: str) -> list[Header]:
    """Name the request, its price, and whether the text was cut."""
    headers = [
        (b"cf-ai-req-id", ai_request_id.encode()),
        (b"cf-ai-neurons", b"%.2f" % answer.neurons),
    ]
    if answer.truncated:
        headers.append((b"x-truncated", b"true"))
    return headers


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
    message = f"AiError: {error.message} ({ai_request_id})"
    body = {
        "errors": [{"message": message, "code": error.code}],
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
            (b"retry-after-ms", b"%d" % (1000 * error.retry_after_s)),
        ]
    if error.status >= 500 and not error.retryable:
        return [(b"x-should-retry", b"false")]
    return []
