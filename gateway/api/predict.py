"""The pipeline for requests whose body asks for classification."""

from __future__ import annotations

from gateway.api.context import RequestContext
from gateway.api.request_body import BodyReader
from gateway.domain.catalogue import Catalogue, Model
from gateway.pipeline.model_label import label_with_model
from gateway.pipeline.predict import Outcome, PredictCall, ReadMessage


class PredictBody:
    """Reads the body of an HTTP request and classifies what it asks for."""

    def __init__(self, classify: PredictCall, catalogue: Catalogue, bodies: BodyReader) -> None:
        self._predict = classify
        self._catalogue = catalogue
        self._bodies = bodies
        self.limits = classify.limits

    def find_model(self, context: RequestContext, name: str) -> Model:
        """Find a model; see `label_with_model`."""
        return label_with_model(context.record, self._catalogue.find, name)

    async def __call__(self, context: RequestContext, read: ReadMessage[bytes]) -> Outcome:
        """Answer a request; see `PredictCall`."""
        return await self._predict(
            context.caller, lambda deadline: self._bodies.read(context.http, deadline), read
        )
