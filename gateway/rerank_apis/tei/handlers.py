"""Handlers of TEI's paths."""

from __future__ import annotations

from uuid import uuid4

from gateway.api.context import RequestContext
from gateway.api.predict import PredictBody
from gateway.domain.catalogue import Model
from gateway.domain.errors import BackendUnavailable
from gateway.domain.monitor import Monitor
from gateway.domain.requests import BatchCall, BatchRequest, Call, InputLimits, SingleCall
from gateway.domain.service import Classification
from gateway.domain.tasks import Task
from gateway.rerank_apis.model_choice import ModelChoice
from gateway.rerank_apis.tei import requests, responses
from gateway.server.message import Response


class Predict:
    """Handler of ``/predict``."""

    def __init__(self, predict: PredictBody, models: ModelChoice) -> None:
        self._predict = predict
        self._models = models

    async def __call__(self, context: RequestContext) -> Response:
        """Score texts by a classifier, or pairs by a reranker."""
        ai_request_id = context.record.ai_request_id = str(uuid4())
        asked: requests.PredictRequest | None = None
        model: Model | None = None

        def read(body: bytes) -> tuple[Model, Call]:
            nonlocal asked, model
            asked = requests.read_predict(body, self._predict.limits)
            model = self._models.find(context.record, asked.model, asked.task)
            if asked.is_batch:
                return model, BatchCall([BatchRequest(None, request) for request in asked.requests])
            return model, SingleCall(asked.requests[0])

        outcome = await self._predict(context, read)
        if asked is None or model is None:
            raise TypeError("a request was answered before it was read")
        if isinstance(outcome, list):
            return responses.predictions(outcome, asked.options, model, ai_request_id)
        if not isinstance(outcome, Classification):
            raise TypeError("a request for the scores of a text was answered with something else")
        return responses.prediction(outcome, asked.options, model, ai_request_id)


class ServerInfo:
    """Handlers of questions about the server.

    Args:
        models: finds the model that is described.
        monitor: knows whether requests would be served.
        limits: of a request.
        max_requests_in_flight: texts in progress at once.
    """

    def __init__(
        self, models: ModelChoice, monitor: Monitor, limits: InputLimits, max_requests_in_flight: int
    ) -> None:
        self._models = models
        self._monitor = monitor
        self._limits = limits
        self._max_requests_in_flight = max_requests_in_flight

    async def info(self, context: RequestContext) -> Response:
        """Describe the model ``?model=``, else the only reranker, else the only classifier."""
        model = self._models.any(context.record, context.http.query("model"))
        is_reranker = model.task is Task.RERANK
        most = self._limits.max_contexts if is_reranker else self._limits.max_batch_texts
        return responses.info(model, most, self._max_requests_in_flight)

    async def health(self, context: RequestContext) -> Response:
        """Return 200 when requests would be served.

        Raises:
            BackendUnavailable: they would not.
        """
        if not self._monitor.is_ready():
            raise BackendUnavailable
        return Response(200, b"")
