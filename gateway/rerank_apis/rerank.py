"""Rankings, in whichever form they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from gateway.api.context import RequestContext
from gateway.api.predict import PredictBody
from gateway.domain.catalogue import Model
from gateway.domain.requests import Call, InputLimits, RerankRequest, SingleCall
from gateway.domain.service import Ranking
from gateway.domain.tasks import Task
from gateway.rerank_apis.model_choice import ModelChoice
from gateway.server.message import Response

RenderRanking = Callable[[Ranking, Model, str], Response]
"""Renders a ranking, given the model that answered and the AI request id.

Raises:
    AiError: the ranking is not what the request allows.
"""


@dataclass(frozen=True, slots=True)
class AskedRanking:
    """A request for a ranking, and the form of its answer."""

    model: str | None
    """The name of the model; None or empty for the only reranker."""
    request: RerankRequest
    render: RenderRanking


ReadRanking = Callable[[RequestContext, bytes, InputLimits], AskedRanking]
"""Reads the body of a request.

Raises:
    AiError: it is not a request in this form.
"""


class Rerank:
    """Handler of requests for a ranking.

    Args:
        predict: answers them.
        models: finds the model.
        read: reads bodies in the form of a route.
    """

    def __init__(self, predict: PredictBody, models: ModelChoice, read: ReadRanking) -> None:
        self._predict = predict
        self._models = models
        self._read = read

    async def __call__(self, context: RequestContext) -> Response:
        """Rank texts by their relevance to a query."""
        ai_request_id = context.record.ai_request_id = str(uuid4())
        found: tuple[AskedRanking, Model] | None = None

        def read(body: bytes) -> tuple[Model, Call]:
            nonlocal found
            asked = self._read(context, body, self._predict.limits)
            model = self._models.find(context.record, asked.model, Task.RERANK)
            found = asked, model
            return model, SingleCall(asked.request)

        outcome = await self._predict(context, read)
        if found is None or not isinstance(outcome, Ranking):
            raise TypeError("a request for a ranking was answered with something else")
        asked, model = found
        return asked.render(outcome, model, ai_request_id)
