"""Answers and errors in one form for the clients of Cohere, Jina and vLLM; the one place for both."""

from __future__ import annotations

import msgspec

from gateway.api.failures import render_failure
from gateway.api.results import answer_headers, usage_of
from gateway.domain.catalogue import Model
from gateway.domain.errors import TritonflareError
from gateway.domain.service import Ranking
from gateway.rerank_apis.cohere.requests import RerankBody
from gateway.rerank_apis.sentences import describe
from gateway.server.message import Response

_TOO_LONG = "'query' leaves no room for a document"

_encode = msgspec.json.Encoder().encode


def failure(error: TritonflareError, ai_request_id: str | None) -> Response:
    """Render an error: Cohere's clients read ``message``, Jina's ``detail``."""
    sentence = describe(error, _TOO_LONG)
    body = {"message": sentence, "detail": sentence}
    if ai_request_id is not None:
        body = {"id": ai_request_id} | body
    return render_failure(error, body, ai_request_id)


def ranking(asked: RerankBody, ranked: Ranking, model: Model, ai_request_id: str) -> Response:
    """Render a ranking, best first.

    Tokens stand where each client looks for them: Jina's and vLLM's in ``usage``, Cohere's in ``meta``.
    """
    results = []
    for index, score in ranked.entries:
        result: dict[str, object] = {"index": index, "relevance_score": score}
        if asked.returns_documents:
            result["document"] = {"text": asked.request.contexts[index]}
        results.append(result)
    body = {
        "id": ai_request_id,
        "model": asked.model or model.name,
        "results": results,
        "usage": usage_of(ranked.tokens),
        "meta": {"tokens": {"input_tokens": ranked.tokens, "output_tokens": 0}},
    }
    return Response(200, _encode(body), headers=answer_headers(ranked, ai_request_id))
