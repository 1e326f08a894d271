"""``env.AI.models()``: the catalogue in the envelope that the binding unwraps."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

from gateway.domain.catalogue import Catalogue, Model
from gateway.http import envelope
from gateway.http.asgi import Request, Response
from gateway.http.router import Handler

_TASK = {
    "id": "19606750-23ed-4371-aab2-c20349b53a60",
    "name": "Text Classification",
    "description": "Labels a text with one of the classes a model knows.",
}


def search_models(catalogue: Catalogue) -> Handler:
    """Return the handler that lists the catalogue; all of it stands on page 1."""

    async def search(request: Request) -> Response:
        first = request.query("page") in (None, "1")
        return envelope.success([_record(model) for model in catalogue] if first else [], [])

    return search


def _record(model: Model) -> dict[str, object]:
    return {
        "id": str(uuid5(NAMESPACE_URL, model.name)),
        "source": 1,
        "name": model.name,
        "description": model.description,
        "task": _TASK,
        "created_at": model.created_at,
        "tags": [],
        "properties": [],
    }
