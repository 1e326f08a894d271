"""Finding models in the catalogue: filters, pages, and the records that callers see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from uuid import NAMESPACE_URL, uuid5

from gateway.domain.catalogue import Model
from gateway.domain.errors import BadInput

SOURCE = 1
"""The live API's value for models that it hosts itself; used for all models here."""

_NAMESPACE = uuid5(NAMESPACE_URL, "tritonflare")
_KNOWN_MODEL_IDS = {"@cf/huggingface/distilbert-sst-2-int8": "eaf31752-a074-441f-8b70-d593255d2811"}
_CLASSIFICATION = "Text Classification"
_CLASSIFICATION_ID = "19606750-23ed-4371-aab2-c20349b53a60"
_CLASSIFICATION_DESCRIPTION = (
    "Sentiment analysis or text classification is a common NLP task that classifies a text input into labels"
    " or classes."
)


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
        and (not wanted.task or _normalised(task_of(model)) == _normalised(wanted.task))
        and (not wanted.author or author_of(model).casefold() == wanted.author.casefold())
        and wanted.search.casefold() in f"{model.name}\n{model.description}".casefold()
    )


def _normalised(task: str) -> str:
    return task.casefold().replace("-", " ")


def author_of(model: Model) -> str:
    """Return the second part of the name, or the first of a name without ``@…/`` in front."""
    parts = model.name.split("/")
    return parts[1] if len(parts) > 2 else parts[0]


def task_of(model: Model) -> str:
    """Return the name of the model's task; without one it is text classification, as all models here."""
    return _CLASSIFICATION if _normalised(model.task) in {"", _normalised(_CLASSIFICATION)} else model.task


def task_record(task: str) -> dict[str, object]:
    """Return a task as the API describes it."""
    if task == _CLASSIFICATION:
        return {"id": _CLASSIFICATION_ID, "name": task, "description": _CLASSIFICATION_DESCRIPTION}
    return {"id": str(uuid5(_NAMESPACE, f"task {task}")), "name": task, "description": ""}


def model_record(model: Model) -> dict[str, object]:
    """Return a model as ``models/search`` lists it; without a price."""
    properties = {
        "info": model.checkpoint,
        "max_input_tokens": str(model.max_tokens),
        "precision": model.precision,
    }
    return {
        "id": _KNOWN_MODEL_IDS.get(model.name) or str(uuid5(_NAMESPACE, model.name)),
        "source": SOURCE,
        "name": model.name,
        "description": model.description,
        "task": task_record(task_of(model)),
        "created_at": model.created_at,
        "tags": [],
        "properties": [{"property_id": key, "value": value} for key, value in properties.items() if value],
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


_INPUT = {
    "type": "object",
    "description": "The text to classify",
    "properties": {
        "text": {"type": "string", "minLength": 1, "description": "The text that you want to classify"}
    },
    "required": ["text"],
    "additionalProperties": True,
}
_OUTPUT = {
    "type": "array",
    "contentType": "application/json",
    "description": "An array of classification results for the input text",
    "items": {
        "type": "object",
        "properties": {
            "score": {
                "type": "number",
                "description": "Confidence score indicating the likelihood that the text belongs to the "
                "specified label",
            },
            "label": {
                "type": "string",
                "description": "The classification label assigned to the text "
                "(e.g., 'POSITIVE' or 'NEGATIVE')",
            },
        },
    },
    "additionalProperties": True,
}
SCHEMAS = {"input": _INPUT, "output": _OUTPUT}
"""JSON Schemas of input and output of every text classifier, as Workers AI documents them.

Its SDKs type ``description``, ``type`` and ``additionalProperties`` of both as always present; the last has
no meaning for an array, and ``true`` forbids nothing.
"""
