"""JSON Schemas of what models take and answer, by task."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from gateway.domain.catalogue import Model
from gateway.domain.requests import InputLimits
from gateway.domain.tasks import Task

_CLASSIFICATION_INPUT: dict[str, Any] = {
    "type": "object",
    "description": "The text to classify",
    "properties": {
        "text": {"type": "string", "minLength": 1, "description": "The text that you want to classify"}
    },
    "required": ["text"],
    "additionalProperties": True,
}
_CLASSIFICATION_OUTPUT: dict[str, Any] = {
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
_RERANK_INPUT: dict[str, Any] = {
    "type": "object",
    "description": "A query, and the contexts to sort by their relevance to it",
    "properties": {
        "query": {
            "type": "string",
            "minLength": 1,
            "description": "A query you wish to perform against the contexts",
        },
        "top_k": {
            "type": "integer",
            "minimum": 1,
            "description": "Number of results to return, the best ones; without it, all",
        },
        "contexts": {
            "type": "array",
            "description": "The contexts to sort; each needs a text",
            # Workers AI's has no "required" here: its validator would find other words for [{}] with one.
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "minLength": 1, "description": "The text of one context"}
                },
            },
        },
    },
    "required": ["query", "contexts"],
    "additionalProperties": True,
}
_RERANK_OUTPUT: dict[str, Any] = {
    "type": "object",
    "contentType": "application/json",
    "description": "The contexts, best first",
    "properties": {
        "response": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "integer", "description": "Index of the context in the request"},
                    "score": {"type": "number", "description": "Relevance to the query, from 0 to 1"},
                },
            },
        },
        "usage": {
            "type": "object",
            "description": "What all pairs cost",
            "properties": {
                "prompt_tokens": {"type": "integer", "description": "Tokens that the model read"},
                "completion_tokens": {"type": "integer", "description": "0: the model writes none"},
                "total_tokens": {"type": "integer", "description": "Sum of both"},
                "prompt_tokens_details": {
                    "type": "object",
                    "properties": {"cached_tokens": {"type": "integer", "description": "Always 0"}},
                },
                "neurons": {"type": "number", "description": "The price in Workers AI's unit"},
            },
        },
    },
    "additionalProperties": True,
}
_SCHEMAS = {
    Task.CLASSIFICATION: (_CLASSIFICATION_INPUT, _CLASSIFICATION_OUTPUT),
    Task.RERANK: (_RERANK_INPUT, _RERANK_OUTPUT),
}


def schemas_of(model: Model, limits: InputLimits) -> dict[str, object]:
    """Return the JSON Schemas of input and output, as Workers AI documents them and with this model's values.

    Its SDKs type ``description``, ``type`` and ``additionalProperties`` of both as always present; the last
    has no meaning for an array, and ``true`` forbids nothing. Added here are the labels (``enum``), the most
    contexts (``maxItems``), and ``x-limits``: how much the model reads of one input, in tokens, and how many
    inputs a batch may have.
    """
    given, answered = deepcopy(_SCHEMAS[model.task])
    given["x-limits"] = {"max_input_tokens": model.max_tokens, "max_requests": limits.max_batch_texts}
    if model.task is Task.RERANK:
        given["properties"]["contexts"]["maxItems"] = limits.max_contexts
    else:
        answered["items"]["properties"]["label"]["enum"] = list(model.labels)
    return {"input": given, "output": answered}
