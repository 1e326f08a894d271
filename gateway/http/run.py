"""``POST /client/v4/accounts/{account_id}/ai/run/{model}``."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from gateway.domain.catalogue import Catalogue
from gateway.domain.errors import NoSuchModel
from gateway.domain.service import Classifier
from gateway.domain.validate import ResultShape, parse_json, result_shape, text_of
from gateway.http import envelope
from gateway.http.asgi import Request, Response, read_body
from gateway.http.limits import Admission, Interrupt
from gateway.http.metrics import Metrics


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What a request may ask for; see the settings of the same names."""

    max_body_bytes: int
    request_timeout_s: float
    result_shape: ResultShape


class RunModel:
    """Classifies the text of one request."""

    def __init__(
        self,
        catalogue: Catalogue,
        classifier: Classifier,
        admission: Admission,
        metrics: Metrics,
        limits: RunLimits,
    ) -> None:
        self._catalogue = catalogue
        self._classifier = classifier
        self._admission = admission
        self._metrics = metrics
        self._limits = limits

    async def __call__(self, request: Request) -> Response:
        """Answer the request: model → admission → body → parse → validate → infer.

        The model comes first because its name costs nothing to look up and decides the schema.
        """
        request.ai_request_id = str(uuid4())
        try:
            model = self._catalogue.find(request.params["model"])
        except NoSuchModel:
            request.model_label = "unknown"
            raise
        request.model_label = model.name
        with self._admission, Interrupt(self._limits.request_timeout_s) as interrupt:
            body = await read_body(request, self._limits.max_body_bytes)
            payload = parse_json(body)
            shape = result_shape(request.query("result_shape"), self._limits.result_shape)
            text = text_of(payload)
            interrupt.watch_for_disconnect(request.receive)
            answer = await self._classifier.classify(model, text, interrupt.remaining_s())
        self._metrics.text_classified(model.name, answer)
        return envelope.classification(answer, shape, request.ai_request_id)
