"""``POST …/ai/run/{model}``, and ``POST …/ai/run`` with the model in the body."""

from __future__ import annotations

from uuid import uuid4

from gateway.api import envelope
from gateway.api.ai_gateway.options import read_request_options, with_options
from gateway.api.context import RequestContext
from gateway.api.predict import PredictBody
from gateway.batches.queue import FetchedBatch
from gateway.batches.store import PendingBatch
from gateway.domain.catalogue import Model
from gateway.domain.errors import NoSuchModel
from gateway.domain.requests import Call, PollCall
from gateway.domain.validate import ResultShape, asks_for_batch, call_of, parse_json, result_shape
from gateway.pipeline.queued import ReadRun, RunOutcome
from gateway.server.message import Response


class RunModel:
    """Handlers that answer what one request asks of a model."""

    def __init__(self, predict: PredictBody, default_shape: ResultShape) -> None:
        self._predict = predict
        self._default_shape = default_shape

    async def __call__(self, context: RequestContext) -> Response:
        """Answer a request whose path names the model.

        The model comes before the body because its name costs nothing to look up and decides the schema.
        """
        self._begin(context)
        model = self._predict.find_model_unless_polled(context, context.params["model"])

        def read(body: bytes) -> tuple[Model, Call] | PollCall:
            payload = parse_json(body)
            self._shape(context)  # refused before anything is computed
            queued = asks_for_batch(payload) or _is_queued(context)
            asked = self._predict.read(body, payload, model, queued=queued)
            return with_options(asked, payload, context, self._predict.long_texts)

        if isinstance(model, NoSuchModel):
            return await self._render(context, await self._predict.poll(context, read, model))
        return await self._answer(context, read)

    async def as_ai_gateway(self, context: RequestContext) -> Response:
        """Answer a request whose path is AI Gateway's; see `PredictBody.routed_name`."""
        context.params["model"] = self._predict.routed_name(context.params["model"])
        return await self(context)

    async def by_body(self, context: RequestContext) -> Response:
        """Answer a request whose body names the model: ``{"model":…,"input":…,"options":…}``."""
        self._begin(context)

        def read(body: bytes) -> tuple[Model, Call] | PollCall:
            payload = parse_json(body)
            name, given, queued = call_of(payload)
            queued = queued or _is_queued(context)
            poll = self._predict.read_poll(given, queued=queued)
            if poll is not None:
                return poll  # the model need not be served any more
            model = self._predict.find_model(context, name)
            self._shape(context)
            asked = self._predict.read(body, given, model, queued=queued)
            return with_options(asked, payload, context, self._predict.long_texts)

        return await self._answer(context, read)

    def _begin(self, context: RequestContext) -> None:
        context.record.ai_request_id = str(uuid4())
        context.options = read_request_options(context.http)

    async def _answer(self, context: RequestContext, read: ReadRun[bytes]) -> Response:
        outcome = await self._predict(context, read, may_queue=_is_queued(context))
        return await self._render(context, outcome)

    async def _render(self, context: RequestContext, outcome: RunOutcome) -> Response:
        request_id = context.record.ai_request_id or ""
        return await render_outcome(self._predict, outcome, self._shape(context), request_id)

    def _shape(self, context: RequestContext) -> ResultShape:
        return result_shape(context.http.query("result_shape"), self._default_shape)


async def render_outcome(
    predict: PredictBody, outcome: RunOutcome, shape: ResultShape, ai_request_id: str
) -> Response:
    """Render what became of a request to the REST API."""
    match outcome:
        case PendingBatch():
            return envelope.pending_batch(outcome, ai_request_id)
        case FetchedBatch():
            batch_id = outcome.id
            return await predict.render(
                outcome, lambda items: envelope.batch(items, shape, ai_request_id, batch_id)
            )
        case list():
            return envelope.batch(outcome, shape, ai_request_id)
        case _:
            return envelope.answer(outcome, shape, ai_request_id)


def _is_queued(context: RequestContext) -> bool:
    return context.http.query("queueRequest") == "true"
