"""What answers look like as JSON values, and the headers that go with them; REST and the binding share it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.batches.store import PendingBatch
from gateway.domain.errors import AiError
from gateway.domain.scores import Score, best_first
from gateway.domain.service import BatchItem, Classification, Ranking, TaskAnswer
from gateway.domain.validate import ResultShape
from gateway.server.message import Header

_MAX_INDEXES_BYTES = 1000
"""Proxies give all headers of an answer 4 to 8 kB; nginx takes 4."""


def result_of(answer: TaskAnswer, shape: ResultShape = "array") -> object:
    """Return the result of one request; ``shape`` is for classifications."""
    return _ranking(answer) if isinstance(answer, Ranking) else shaped(answer.scores, shape)


def shaped(scores: Sequence[Score], shape: ResultShape) -> object:
    """Return the scores of one text."""
    return {"items": entries(best_first(scores))} if shape == "items" else entries(scores)


def entries(scores: Sequence[Score]) -> list[dict[str, object]]:
    """Return the scores as the API lists them, in the given order."""
    return [{"label": label, "score": score} for label, score in scores]


def _ranking(answer: Ranking) -> dict[str, object]:
    usage = {
        **usage_of(answer.tokens),
        "prompt_tokens_details": {"cached_tokens": 0},
        "neurons": answer.neurons,
    }
    return {"response": [{"id": place, "score": score} for place, score in answer.entries], "usage": usage}


def usage_of(tokens: int) -> dict[str, object]:
    """Return the tokens that were read; a model of this kind writes none."""
    return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}


def answer_headers(answer: TaskAnswer, ai_request_id: str) -> list[Header]:
    """Name the request, its price, which contexts were cut, windows, and whether the answer was cached."""
    cut = [pair.truncated for pair in answer.pairs] if isinstance(answer, Ranking) else []
    return [
        *_headers(ai_request_id, answer.neurons, answer.truncated, answer.cached, _windows((answer,))),
        *_truncated_texts(cut),
    ]


def batch_result(items: Sequence[BatchItem], shape: ResultShape, ai_request_id: str) -> dict[str, object]:
    """Return the result of a finished batch: one response an item, in order, and the tokens read."""
    tokens = sum(answer.tokens for answer in _answers(items))
    return {
        "responses": [_response(place, item, shape, ai_request_id) for place, item in enumerate(items)],
        "usage": usage_of(tokens),
    }


def pending_result(batch: PendingBatch) -> dict[str, object]:
    """Return what is known of a batch that has no result yet."""
    return {
        "status": "running" if batch.is_running else "queued",
        "request_id": batch.id,
        "model": batch.model,
    }


def pending_headers(ai_request_id: str) -> list[Header]:
    """Name the request; a poll costs nothing."""
    return _headers(ai_request_id, 0.0, truncated=False, cached=None)


def batch_headers(items: Sequence[BatchItem], ai_request_id: str) -> list[Header]:
    """Name the request, the price of all of its texts, which of them were cut and whether all were cached.

    Windows are those of all texts that were read in several.
    """
    answers = _answers(items)
    neurons = sum(answer.neurons for answer in answers)
    truncated = any(answer.truncated for answer in answers)
    cached = None
    if any(answer.cached is not None for answer in answers):
        cached = len(answers) == len(items) and all(answer.cached for answer in answers)
    cut = [not isinstance(item.outcome, AiError) and item.outcome.truncated for item in items]
    return [*_headers(ai_request_id, neurons, truncated, cached, _windows(answers)), *_truncated_texts(cut)]


def _windows(answers: Sequence[TaskAnswer]) -> int:
    """Return the windows of all texts that were read in more than one."""
    windows = (answer.windows for answer in answers if isinstance(answer, Classification))
    return sum(count for count in windows if count > 1)


def truncated_texts(cut: Sequence[bool]) -> str:
    """Return the indexes at which ``cut`` is true, runs of them as ranges: ``0,3-5``."""
    runs: list[list[int]] = []
    for place in (place for place, is_cut in enumerate(cut) if is_cut):
        if runs and runs[-1][-1] == place - 1:
            runs[-1][1:] = [place]
        else:
            runs.append([place])
    return ",".join("-".join(map(str, run)) for run in runs)


def _truncated_texts(cut: Sequence[bool]) -> list[Header]:
    """Name the texts that were cut, unless none was or the list is too long for a header."""
    indexes = truncated_texts(cut)
    if not indexes or len(indexes) > _MAX_INDEXES_BYTES:
        return []
    return [(b"x-truncated-texts", indexes.encode())]


def _answers(items: Sequence[BatchItem]) -> list[TaskAnswer]:
    return [item.outcome for item in items if not isinstance(item.outcome, AiError)]


def _response(place: int, item: BatchItem, shape: ResultShape, ai_request_id: str) -> dict[str, object]:
    """Render one item; one that failed looks like the answer to a single request that failed."""
    response: dict[str, object] = {"id": place, "result": {}, "success": False}
    if isinstance(item.outcome, AiError):
        response["errors"] = [error_entry(item.outcome, ai_request_id)]
    else:
        response |= {"result": result_of(item.outcome, shape), "success": True}
    return response | {"external_reference": item.reference}


def error_entry(error: AiError, ai_request_id: str) -> dict[str, object]:
    """Return an error as an entry of ``errors``."""
    return {"message": f"AiError: {error.message} ({ai_request_id})", "code": error.code}


def _headers(
    ai_request_id: str, neurons: float, truncated: bool, cached: bool | None, windows: int = 0
) -> list[Header]:
    headers = [
        (b"cf-ai-req-id", ai_request_id.encode()),
        (b"cf-ai-neurons", b"%.2f" % neurons),
    ]
    if truncated:
        headers.append((b"x-truncated", b"true"))
    if windows:
        headers.append((b"x-windows", b"%d" % windows))
    if cached is not None:
        headers.append((b"cf-aig-cache-status", b"HIT" if cached else b"MISS"))
    return headers
