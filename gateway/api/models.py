"""What callers can ask about the models: lists, schemas, tasks, authors; all from the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.api import envelope
from gateway.api.context import RequestContext
from gateway.api.reports import Reports
from gateway.domain import search
from gateway.domain.catalogue import Catalogue, Model
from gateway.domain.errors import BackendUnavailable, BadInput
from gateway.domain.requests import InputLimits
from gateway.domain.schemas import schemas_of
from gateway.pipeline.model_label import label_with_model
from gateway.server.message import Response

_PER_PAGE = 100


class ModelQueries:
    """Handlers of ``…/ai/models/*``, ``…/ai/tasks/search``, ``…/ai/authors/search``, ``…/ai/v1/models``."""

    def __init__(self, catalogue: Catalogue, limits: InputLimits, reports: Reports) -> None:
        self._catalogue = catalogue
        self._reports = reports
        self._limits = limits

    async def search(self, request: RequestContext) -> Response:
        """List the models that fit the query, one page of them; empty past the end.

        Nothing here is experimental or deprecated, so ``hide_experimental`` and ``include_deprecated``
        change nothing; neither does ``format=openrouter``, whose form no public document shows.
        """
        page = search.Page(
            search.positive_number("page", request.http.query("page"), 1),
            search.positive_number("per_page", request.http.query("per_page"), _PER_PAGE),
        )
        found = search.find(self._models(), _criteria(request))
        shown = page.of(found)
        properties = await self._reports.properties(shown)
        return envelope.success(
            [search.model_record(*each) for each in zip(shown, properties, strict=True)],
            extra={
                "result_info": {
                    "page": page.number,
                    "per_page": page.size,
                    "count": len(shown),
                    "total_count": len(found),
                }
            },
        )

    async def schema(self, request: RequestContext) -> Response:
        """Answer with the JSON Schemas of ``?model=``."""
        name = request.http.query("model")
        if not name:
            raise BadInput("Error: query parameter 'model' is required")
        model = label_with_model(request.record, self._catalogue.find, name)
        return envelope.success(schemas_of(model, self._limits))

    async def tasks(self, request: RequestContext) -> Response:
        """List the tasks that some model is for."""
        self._models()  # refused while none is known
        return envelope.success([search.TASK])

    async def authors(self, request: RequestContext) -> Response:
        """List the authors that some model's name has."""
        names = sorted({search.author_of(model) for model in self._models()})
        return envelope.success([{"name": name} for name in names])

    async def openai(self, request: RequestContext) -> Response:
        """List the models in the shape of OpenAI's API, for tools that expect them there."""
        data = [search.openai_record(model) for model in search.find(self._models(), search.Criteria())]
        return Response(200, msgspec.json.encode({"object": "list", "data": data}))

    def _models(self) -> Sequence[Model]:
        models = list(self._catalogue)
        if not models:
            # An empty list would mean that there are no models, which is not known.
            raise BackendUnavailable
        return models


def _criteria(request: RequestContext) -> search.Criteria:
    source = request.http.query("source")
    return search.Criteria(
        search=request.http.query("search") or "",
        task=request.http.query("task") or "",
        author=request.http.query("author") or "",
        source=None if source is None else search.positive_number("source", source, search.SOURCE),
    )
