"""Answers and errors as TEI renders them; the one place for both."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version as package_version
from typing import Literal

import msgspec

from gateway.api.failures import render_failure
from gateway.api.results import answer_headers, batch_headers, entries
from gateway.domain import errors
from gateway.domain.catalogue import Model
from gateway.domain.errors import BadInput, TritonflareError
from gateway.domain.scores import Score, best_first
from gateway.domain.service import BatchItem, Classification, Ranking
from gateway.domain.tasks import Task
from gateway.rerank_apis.sentences import describe
from gateway.rerank_apis.tei.requests import AnswerOptions, RerankBody
from gateway.server.message import Response

_ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Empty"]

_STATUSES: dict[type[TritonflareError], int] = {
    # Until its version 1.8, TEI answered 413.
    errors.BadInput: 422,
    errors.QueryTooLong: 422,
    errors.BackendFailed: 424,
    errors.NoModelForTask: 424,
}
"""Where TEI differs from the usual; an input that is empty keeps 400."""

_TYPES: dict[type[TritonflareError], _ErrorType] = {
    errors.EmptyInput: "Empty",
    errors.Overloaded: "Overloaded",
    errors.RateLimited: "Overloaded",
    errors.BackendUnavailable: "Unhealthy",
    errors.ModelUnavailable: "Unhealthy",
    errors.ShuttingDown: "Unhealthy",
    errors.BackendFailed: "Backend",
    errors.NoModelForTask: "Backend",
    # TEI has no deadline and no such defect; clients know no other type.
    errors.DeadlineExceeded: "Backend",
    errors.UnknownError: "Backend",
}
"""The types that are not ``Validation``."""

_MODEL_TYPES = {Task.CLASSIFICATION: "classifier", Task.RERANK: "reranker"}
_DTYPES = {"fp32": "float32", "fp16": "float16"}

_encode = msgspec.json.Encoder().encode


def failure(error: TritonflareError, ai_request_id: str | None) -> Response:
    """Render an error as ``{"error": "…", "error_type": "…"}``."""
    return _failure(error, ai_request_id, "`query` leaves no room for an element of `texts`")


def prediction_failure(error: TritonflareError, ai_request_id: str | None) -> Response:
    """Render an error of ``/predict``, whose pairs are all in ``inputs``."""
    return _failure(
        error, ai_request_id, "the first text of a pair of `inputs` leaves no room for the second"
    )


def _failure(error: TritonflareError, ai_request_id: str | None, too_long: str) -> Response:
    body = {"error": describe(error, too_long), "error_type": _TYPES.get(type(error), "Validation")}
    return render_failure(error, body, ai_request_id, _STATUSES)


def ranking(asked: RerankBody, ranked: Ranking, model: Model, ai_request_id: str) -> Response:
    """Render a ranking, best first.

    Raises:
        BadInput: a text was cut, and the request does not allow that.
    """
    for pair in ranked.pairs:
        _check_length(pair, asked.options, model)
    ranks = []
    for index, score in ranked.entries:
        rank: dict[str, object] = {"index": index}
        if asked.returns_text:
            rank["text"] = asked.request.contexts[index]
        ranks.append(rank | {"score": ranked.pairs[index].logits[0] if asked.options.raw_scores else score})
    return Response(200, _encode(ranks), headers=answer_headers(ranked, ai_request_id))


def prediction(answer: Classification, options: AnswerOptions, model: Model, ai_request_id: str) -> Response:
    """Render the scores of one text or pair, best label first.

    Raises:
        BadInput: it was cut, and the request does not allow that.
    """
    body = _scores(answer, options, model)
    return Response(200, _encode(body), headers=answer_headers(answer, ai_request_id))


def predictions(
    items: Sequence[BatchItem], options: AnswerOptions, model: Model, ai_request_id: str
) -> Response:
    """Render the scores of a batch, in its order; it is answered whole or not at all.

    Raises:
        AiError: that of the first text without an answer.
        BadInput: a text was cut, and the request does not allow that.
    """
    body = [_scores(_answered(item), options, model) for item in items]
    return Response(200, _encode(body), headers=batch_headers(items, ai_request_id))


def _answered(item: BatchItem) -> Classification:
    if isinstance(item.outcome, errors.AiError):
        raise item.outcome
    if isinstance(item.outcome, Ranking):
        raise TypeError("a batch holds texts and pairs, no rankings")
    return item.outcome


def _scores(answer: Classification, options: AnswerOptions, model: Model) -> list[dict[str, object]]:
    _check_length(answer, options, model)
    scores: Sequence[Score] = answer.scores
    if options.raw_scores:
        scores = list(zip(model.labels, answer.logits, strict=True))
    return [{"score": entry["score"], "label": entry["label"]} for entry in entries(best_first(scores))]


def _check_length(answer: Classification, options: AnswerOptions, model: Model) -> None:
    if answer.truncated and not options.may_truncate:
        raise BadInput(
            f"`inputs` must have at most {model.max_tokens} tokens, but one has {answer.token_count} or more;"
            " it is cut unless `truncate` is false"
        )


def info(model: Model, max_client_batch_size: int, max_concurrent_requests: int) -> Response:
    """Describe a model and the limits of its requests."""
    labels = {
        "id2label": {str(place): label for place, label in enumerate(model.labels)},
        "label2id": {label: place for place, label in enumerate(model.labels)},
    }
    body = {
        "model_id": model.name,
        "model_sha": model.weights_sha256 or None,
        "model_dtype": _DTYPES.get(model.precision, model.precision),
        "served_model_name": model.name,
        "model_type": {_MODEL_TYPES[model.task]: labels},
        "max_concurrent_requests": max_concurrent_requests,
        "max_input_length": model.max_tokens,
        "max_batch_tokens": model.max_tokens * model.max_batch_size,
        "max_batch_requests": model.max_batch_size,
        "max_client_batch_size": max_client_batch_size,
        "auto_truncate": True,
        "version": package_version("tritonflare"),
    }
    return Response(200, _encode(body))
