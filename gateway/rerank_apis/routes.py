"""Which path leads to which handler."""

from __future__ import annotations

from functools import partial

from gateway.api.context import RequestContext
from gateway.api.predict import PredictBody
from gateway.api.router import Route
from gateway.domain.monitor import Monitor
from gateway.domain.requests import InputLimits
from gateway.rerank_apis import cohere, tei
from gateway.rerank_apis.model_choice import ModelChoice
from gateway.rerank_apis.rerank import AskedRanking, Rerank
from gateway.rerank_apis.tei.handlers import Predict, ServerInfo

_GET = ("GET", "HEAD")
_POST = ("POST",)


def rerank_routes(
    predict: PredictBody, models: ModelChoice, monitor: Monitor, max_requests_in_flight: int
) -> tuple[Route, ...]:
    """Routes in the order in which they are tried; ``/v2/rerank`` has to come before ``/v2/{path}``.

    Args:
        predict: answers requests.
        models: finds the model of a request.
        monitor: knows whether requests would be served.
        max_requests_in_flight: see the setting of the same name.
    """
    described = ServerInfo(models, monitor, predict.limits, max_requests_in_flight)
    of_cohere = Rerank(predict, models, _read_cohere)
    return (
        Route(_POST, "/rerank", Rerank(predict, models, _read_either), render_failure=tei.failure),
        Route(_POST, "/v1/rerank", of_cohere, render_failure=cohere.failure),
        Route(_POST, "/v2/rerank", of_cohere, render_failure=cohere.failure),
        Route(_POST, "/predict", Predict(predict, models), render_failure=tei.prediction_failure),
        Route(_GET, "/info", described.info, render_failure=tei.failure),
        Route(_GET, "/health", described.health, api=False, render_failure=tei.failure),
    )


def _read_cohere(_: RequestContext, body: bytes, limits: InputLimits) -> AskedRanking:
    return _for_cohere(cohere.read_rerank(body, limits))


def _for_cohere(asked: cohere.RerankBody) -> AskedRanking:
    return AskedRanking(asked.model, asked.request, partial(cohere.ranking, asked))


def _read_either(context: RequestContext, body: bytes, limits: InputLimits) -> AskedRanking:
    """Read a body of TEI's form, or of Cohere's, which vLLM and Infinity take on this path.

    The answers of vLLM have the documents, as those of Jina do unless told otherwise.
    """
    if cohere.has_documents(body):
        context.render_failure = cohere.failure
        return _for_cohere(cohere.read_rerank(body, limits, returns_documents=True))
    asked = tei.read_rerank(body, limits)
    return AskedRanking(asked.model, asked.request, partial(tei.ranking, asked))
