"""Renders answers and errors for a Workers binding: unwrapped, errors as one flat object.

The binding takes a body for JSON only where ``content-type`` is exactly ``application/json``, and throws
``<name>: <internalCode>: <description>``. What the API front refuses (route, method, token) keeps the v4
envelope, which the binding reads as well: it is what the front in front of Workers AI would answer.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from uuid import uuid4

import msgspec

from gateway.api import envelope
from gateway.api.results import (
    answer_headers,
    batch_headers,
    batch_result,
    pending_headers,
    pending_result,
    result_of,
)
from gateway.batches.store import PendingBatch
from gateway.domain.errors import AiError, BadInput, TritonflareError
from gateway.domain.service import BatchItem, Classification, TaskAnswer
from gateway.server.message import Header, Response

_encode = msgspec.json.Encoder().encode
_NAME = "AiError"


def answer(answered: TaskAnswer, ai_request_id: str) -> Response:
    """Render what ``env.AI.run`` resolves to (``version=3``)."""
    return Response(200, _encode(result_of(answered)), headers=answer_headers(answered, ai_request_id))


def batch(items: Sequence[BatchItem], ai_request_id: str, batch_id: str | None = None) -> Response:
    """Render a finished batch, as polling for one with ``env.AI.run`` resolves (``version=3``)."""
    return Response(
        200,
        _encode(batch_result(items, "array", batch_id or ai_request_id)),
        headers=batch_headers(items, ai_request_id),
    )


def pending_batch(pending: PendingBatch, ai_request_id: str) -> Response:
    """Render a batch that has no result yet, as ``env.AI.run`` resolves (``version=3``)."""
    return Response(200, _encode(pending_result(pending)), headers=pending_headers(ai_request_id))


def gzipped(answered: TaskAnswer, ai_request_id: str, *, debug: bool) -> Response:
    """Render for ``@cloudflare/ai`` 1.1 (``version=2``): gzip bytes that no header announces.

    The client unpacks the body itself, so a Content-Encoding would have it unpacked twice. With
    ``debug``, ``cf-ai-logs`` carries what ``getLogs()`` returns: base64 of a JSON array.
    """
    headers = answer_headers(answered, ai_request_id)
    if debug:
        entry = {
            "tokens": answered.tokens,
            "truncated": answered.truncated,
            "neurons": round(answered.neurons, 2),
        }
        headers.append((b"cf-ai-logs", base64.b64encode(_encode([entry]))))
    body = _encode(result_of(answered))
    return Response(200, gzip.compress(body, compresslevel=1, mtime=0), headers=headers)


def tensors(answer: Classification, ai_request_id: str) -> Response:
    """Render for ``@cloudflare/ai`` 1.0: a tensor called logits that holds the probabilities.

    Shape ``[1, labels]``, in the order of the model's labels; the client puts its own labels to them.
    """
    scores = [score for _, score in answer.scores]
    tensor = {"type": "float32", "shape": [1, len(scores)], "name": "logits", "value": [scores]}
    headers = answer_headers(answer, ai_request_id)
    return Response(200, _encode({"result": [tensor]}), headers=headers)


def failure(error: TritonflareError, ai_request_id: str | None) -> Response:
    """Render an error; the keys are those of the binding's wire."""
    if not isinstance(error, AiError):
        return envelope.failure(error, ai_request_id)
    body = {
        "internalCode": error.code,
        "httpCode": error.status,
        "name": _NAME,
        "message": f"{_NAME}: {error.message}",
        "description": error.description if isinstance(error, BadInput) else error.message,
    }
    headers: list[Header] = [(b"cf-ai-req-id", (ai_request_id or str(uuid4())).encode())]
    headers += envelope.retry_headers(error)
    return Response(error.status, _encode(body), headers=headers, code=error.code)
