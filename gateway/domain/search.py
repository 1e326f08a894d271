"""Finding models in the catalogue: filters, pages, and the records that callers see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from uuid import NAMESPACE_URL, uuid5

from gateway.domain.catalogue import Model
from gateway.domain.errors import BadInput
from gateway.domain.tasks import PRICES

SOURCE = 1
"""The live API's value for models that it hosts itself; used for all models here."""

_NAMESPACE = uuid5(NAMESPACE_URL, "tritonflare")
_KNOWN_MODEL_IDS = {
    "@cf/huggingface/distilbert-sst-2-int8": "eaf31752-a074-441f-8b70-d593255d2811",
    "@cf/baai/bge-reranker-base": "145337e7-cec3-4ebb-8e78-16ddfc75e580",
}


@dataclass(frozen=True, slots=True)
class Criteria:
    """Filters of a search; None and an empty text match every model."""

    search: str = ""
    """Part of the name or the description."""
    task: str = ""
    """Name of the task, ``Text Classification`` or ``text-classification``."""
    author: str = ""
    """Second part of the name, ``huggingface`` in ``@cf/huggingface/distilbert-sst-2-int8``."""
    source: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a longer list; pages count from 1."""

    number: int
    size: int

    def of(self, models: Sequence[Model]) -> Sequence[Model]:
        """Return the models on this page, none past the end."""
        start = (self.number - 1) * self.size
        return models[start : start + self.size]


def positive_number(name: str, given: str | None, default: int) -> int:
    """Read a query parameter that counts something.

    Raises:
        BadInput: it is not a number from 1 to 999,999,999 in decimal digits.
    """
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 10 and int(given) > 0):
        raise BadInput(f"Error: query parameter '{name}' must be an integer >= 1")
    return int(given)


def find(models: Iterable[Model], wanted: Criteria) -> list[Model]:
    """Return the matching models, sorted by name so that pages do not change between two requests."""
    return sorted((model for model in models if _matches(model, wanted)), key=lambda model: model.name)


def _matches(model: Model, wanted: Criteria) -> bool:
    return (
        (wanted.source is None or wanted.source == SOURCE)
        and (not wanted.task or _normalised(TASK["name"]) == _normalised(wanted.task))
        and (not wanted.author or author_of(model).casefold() == wanted.author.casefold())
        and wanted.search.casefold() in f"{model.name}\n{model.description}".casefold()
    )


def _normalised(task: str) -> str:
    return task.casefold().replace("-", " ")


def author_of(model: Model) -> str:
    """Return the second part of the name, or the first of a name without ``@…/`` in front."""
    parts = model.name.split("/")
    return parts[1] if len(parts) > 2 else parts[0]


TASK = {
    "id": "19606750-23ed-4371-aab2-c20349b53a60",
    "name": "Text Classification",
    "description": "Sentiment analysis or text classification is a common NLP task that classifies a text "
    "input into labels or classes.",
}
"""The task as the API describes it; at Workers AI, rerankers belong to it as well."""


def model_record(model: Model, more: Sequence[dict[str, object]] = ()) -> dict[str, object]:
    """Return a model as ``models/search`` lists it; the price is Workers AI's for the task.

    ``more`` are properties behind the model's own.
    """
    price = {"unit": "per M input tokens", "price": PRICES[model.task].dollars, "currency": "USD"}
    properties: dict[str, object] = {
        "price": [price],
        "info": model.checkpoint,
        "max_input_tokens": str(model.max_tokens),
        "precision": model.precision,
        "version": model.version_id,
    }
    return {
        "id": _KNOWN_MODEL_IDS.get(model.name) or str(uuid5(_NAMESPACE, model.name)),
        "source": SOURCE,
        "name": model.name,
        "description": model.description,
        "task": TASK,
        "created_at": model.created_at,
        "tags": [],
        "properties": [
            *({"property_id": key, "value": value} for key, value in properties.items() if value),
            *more,
        ],
    }


def openai_record(model: Model) -> dict[str, object]:
    """Return a model as ``GET /v1/models`` of OpenAI's API lists it; ``created`` is as a Unix timestamp."""
    return {
        "id": model.name,
        "object": "model",
        "created": _unix_time(model.created_at),
        "owned_by": author_of(model),
    }


def _unix_time(created_at: str) -> int:
    try:
        return int(datetime.fromisoformat(created_at).replace(tzinfo=timezone.utc).timestamp())
    except (ValueError, OverflowError):
        return 0
