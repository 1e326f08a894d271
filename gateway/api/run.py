"""``POST …/ai/run/{model}``, and ``POST …/ai/run`` with the model in the body."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from gateway.access.admission import Admission
from gateway.access.rate_limit import RateLimit
from gateway.api import envelope
from gateway.api.batch import BatchRunner
from gateway.api.deadline import RequestDeadline
from gateway.api.request_body import BodyReader
from gateway.domain.catalogue import Catalogue, Model
from gateway.domain.errors import NoSuchModel
from gateway.domain.service import Classifier
from gateway.domain.validate import (
    ResultShape,
    call_of,
    parse_json,
    requests_of,
    result_shape,
    text_of,
    wants_queue,
)
from gateway.server.message import Request, Response
from gateway.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What a request may ask for; see the settings of the same names."""

    request_timeout_s: float
    result_shape: ResultShape
    max_batch_texts: int


def find_model(catalogue: Catalogue, request: Request, name: str) -> Model:
    """Find a model, and label the request with it for the metrics.

    Raises:
        NoSuchModel: nothing ready is called so; the label is then bounded.
    """
    try:
        model = catalogue.find(name)
    except NoSuchModel:
        request.model_label = "unknown"
        raise
    request.model_label = model.name
    return model


class RunModel:
    """Classifies the text or texts of one request."""

    def __init__(
        self,
        catalogue: Catalogue,
        classifier: Classifier,
        batches: BatchRunner,
        bodies: BodyReader,
        admission: Admission,
        metrics: Metrics,
        limits: RunLimits,
        rate: RateLimit,
    ) -> None:
        self._catalogue = catalogue
        self._classifier = classifier
        self._batches = batches
        self._bodies = bodies
        self._admission = admission
        self._metrics = metrics
        self._limits = limits
        self._rate = rate

    async def __call__(self, request: Request) -> Response:
        """Answer the request: model → admission → body → parse → rate → validate → infer.

        The model comes before the body because its name costs nothing to look up and decides the schema;
        the rate after it, because only the body tells how many texts there are to count.
        """
        request.ai_request_id = str(uuid4())
        model = find_model(self._catalogue, request, request.params["model"])
        with RequestDeadline(self._limits.request_timeout_s) as deadline:
            body = await self._bodies.body_of(request, deadline)
            with self._admission:
                payload = parse_json(body)
                return await self._run(request, model, payload, wants_queue(payload), deadline)

    async def by_body(self, request: Request) -> Response:
        """Answer a request whose body names the model: ``{"model":…,"input":…,"options":…}``."""
        request.ai_request_id = str(uuid4())
        with RequestDeadline(self._limits.request_timeout_s) as deadline:
            body = await self._bodies.body_of(request, deadline)
            with self._admission:
                name, given, queued = call_of(parse_json(body))
                model = find_model(self._catalogue, request, name)
                return await self._run(request, model, given, queued, deadline)

    async def _run(
        self, request: Request, model: Model, payload: object, queued: bool, deadline: RequestDeadline
    ) -> Response:
        ai_request_id = request.ai_request_id or ""
        shape = result_shape(request.query("result_shape"), self._limits.result_shape)
        queued = queued or request.query("queueRequest") == "true"
        inputs = requests_of(payload, queued, self._limits.max_batch_texts)
        if inputs is not None:
            items = await self._batches.run(request, model, inputs, deadline)
            return envelope.batch(items, shape, ai_request_id)
        await self._rate.spend(request)
        text = text_of(payload)
        deadline.watch_for_disconnect(request)
        answer = await self._classifier.classify(model, text, deadline.remaining_s())
        request.timing = answer.timing
        self._metrics.text_classified(model.name, answer)
        return envelope.classification(answer, shape, ai_request_id)
