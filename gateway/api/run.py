"""``POST …/ai/run/{model}``, and ``POST …/ai/run`` with the model in the body."""

from __future__ import annotations

from uuid import uuid4

from gateway.api import envelope
from gateway.api.context import RequestContext
from gateway.api.predict import PredictBody
from gateway.domain.catalogue import Model
from gateway.domain.requests import Call, read_call
from gateway.domain.validate import ResultShape, asks_for_batch, call_of, parse_json, result_shape
from gateway.pipeline.predict import ReadMessage
from gateway.server.message import Response


class RunModel:
    """Handlers that answer what one request asks of a model."""

    def __init__(self, classify: PredictBody, default_shape: ResultShape) -> None:
        self._predict = classify
        self._default_shape = default_shape

    async def __call__(self, context: RequestContext) -> Response:
        """Answer a request whose path names the model.

        The model comes before the body because its name costs nothing to look up and decides the schema.
        """
        context.record.ai_request_id = str(uuid4())
        model = self._predict.find_model(context, context.params["model"])

        def read(body: bytes) -> tuple[Model, Call]:
            payload = parse_json(body)
            return model, self._read(context, model, payload, queued=asks_for_batch(payload))

        return await self._answer(context, read)

    async def by_body(self, context: RequestContext) -> Response:
        """Answer a request whose body names the model: ``{"model":…,"input":…,"options":…}``."""
        context.record.ai_request_id = str(uuid4())

        def read(body: bytes) -> tuple[Model, Call]:
            name, given, queued = call_of(parse_json(body))
            model = self._predict.find_model(context, name)
            return model, self._read(context, model, given, queued=queued)

        return await self._answer(context, read)

    def _read(self, context: RequestContext, model: Model, payload: object, *, queued: bool) -> Call:
        self._shape(context)  # refused before anything is computed
        queued = queued or context.http.query("queueRequest") == "true"
        return read_call(payload, model.task, self._predict.limits.inputs, queued=queued)

    async def _answer(self, context: RequestContext, read: ReadMessage[bytes]) -> Response:
        outcome = await self._predict(context, read)
        ai_request_id = context.record.ai_request_id or ""
        if isinstance(outcome, list):
            return envelope.batch(outcome, self._shape(context), ai_request_id)
        return envelope.answer(outcome, self._shape(context), ai_request_id)

    def _shape(self, context: RequestContext) -> ResultShape:
        return result_shape(context.http.query("result_shape"), self._default_shape)
