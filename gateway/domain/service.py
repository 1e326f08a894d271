"""The use case: requests in, labelled scores or rankings out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.domain.backend import QUERY_TOO_LONG, Answer, AnswerSource, RawScores, Timing
from gateway.domain.cache import AnswerCache
from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, BackendFailed, QueryTooLong, without_frames
from gateway.domain.inputs import ModelInput, Pair
from gateway.domain.options import NO_OPTIONS, CallOptions
from gateway.domain.requests import RerankRequest, TaskRequest, TextRequest
from gateway.domain.scores import InvalidLogits, Score, label_scores
from gateway.domain.tasks import PRICES, Task
from gateway.domain.validate import utf8
from gateway.domain.windows import (
    DEFAULT_LIMITS,
    Classify,
    Reserve,
    WindowLimits,
    WindowPlan,
    combine,
    reads_windows,
    reserve_nothing,
)

_log = logging.getLogger("tritonflare.service")

_LONG_TEXTS_AT_ONCE = 4
"""How many texts of a batch are read in windows at the same time: enough to keep the call slots busy."""
_QUERY_BYTES_A_TOKEN = 8
"""A query with more bytes for each token that the model reads probably leaves no room for a context."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The scores of one text, whole or in windows, or of one pair."""

    scores: list[Score]
    """In the order of the catalogue's labels."""
    tokens: int
    """Tokens the model read, after truncation; those of all windows together."""
    truncated: bool
    """Whether the text had more tokens than were read."""
    logits: tuple[float, ...] = ()
    """The model's output, in the order of the labels; empty for a text in windows: each has its own."""
    token_count: int = 0
    """Tokens of the text before truncation; see `RawScores`."""
    cached: bool | None = None
    """Whether the answer is from the cache; None without a cache."""
    task: Task = Task.CLASSIFICATION
    """Of the model."""
    timing: Timing | None = field(default=None, compare=False)
    """None if nothing was sent for this request."""
    windows: int = 1
    """Windows in which the text was read; 1 for a text that is not long, or that was cut."""

    @property
    def neurons(self) -> float:
        """The price of the call in Workers AI's unit."""
        return PRICES[self.task].of(self.tokens)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Contexts by their relevance to a query."""

    entries: list[tuple[int, float]]
    """Index and score (0 to 1) of each context that was asked for, best first; equal ones in their order."""
    pairs: Sequence[Classification] = ()
    """The pair of the query with each context, in the order of the request."""

    @property
    def tokens(self) -> int:
        """Tokens the model read, of all pairs, after truncation."""
        return sum(pair.tokens for pair in self.pairs)

    @property
    def truncated(self) -> bool:
        """Whether a context was cut because its pair had more tokens than the model reads."""
        return any(pair.truncated for pair in self.pairs)

    @property
    def cached(self) -> bool | None:
        """Whether all scores are from the cache; None without a cache, or without contexts."""
        return all_cached([pair.cached for pair in self.pairs])

    @property
    def neurons(self) -> float:
        """The price of the call in Workers AI's unit."""
        return PRICES[Task.RERANK].of(self.tokens)

    @property
    def timing(self) -> Timing | None:
        """What the caller waited for at least; None if nothing was sent for this request."""
        return longest([pair.timing for pair in self.pairs])


TaskAnswer = Classification | Ranking


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One input of a batch and its outcome; its index in the batch is its id."""

    reference: str | None
    """The caller's name for it."""
    outcome: TaskAnswer | AiError


class Predictor:
    """Answers requests with the scores of a source.

    Args:
        source: computes scores: the coalescer.
        cache: in front of it, if there is one.
        windows: of long texts, for calls that ask for them.
        deadline_per_call: whether a deadline is that of each call to the source, as for requests that can
            wait, and not that of the answer.
    """

    def __init__(
        self,
        source: AnswerSource,
        cache: AnswerCache | None = None,
        windows: WindowLimits = DEFAULT_LIMITS,
        *,
        deadline_per_call: bool = False,
    ) -> None:
        self._source = source
        self._cache = cache
        self._windows = windows
        self._deadline_per_call = deadline_per_call

    async def answer(
        self,
        model: Model,
        request: TaskRequest,
        deadline_s: float,
        options: CallOptions = NO_OPTIONS,
        reserve: Reserve = reserve_nothing,
    ) -> TaskAnswer:
        """Answer one request; see `answer_all`.

        Raises:
            AiError: what ``Backend.classify`` raises; BackendFailed too when the logits are not finite, and
                QueryTooLong.
        """
        (answer,) = await self.answer_all(model, (request,), deadline_s, options, reserve)
        if isinstance(answer, AiError):
            raise answer
        return answer

    async def answer_all(
        self,
        model: Model,
        requests: Sequence[TaskRequest],
        deadline_s: float,
        options: CallOptions = NO_OPTIONS,
        reserve: Reserve = reserve_nothing,
    ) -> list[TaskAnswer | AiError]:
        """Answer many requests; return for each, in order, its answer or its error.

        A ranking has an error if one of its pairs has. Where the query is long, the first pair is asked
        alone, and the others only if that has a score: a query is sent again with each context.

        Long texts are read in windows if the options ask for that and the model reads windows, a few texts at
        a time; those that can wait, one after the other.

        Args:
            model: answers.
            requests: what to answer.
            deadline_s: in seconds from now, or of each call; see `Predictor`.
            options: of the call.
            reserve: takes places for windows.
        """
        ends = time.monotonic() + deadline_s

        async def classify(inputs: Sequence[ModelInput]) -> list[Answer]:
            left_s = deadline_s if self._deadline_per_call else max(0.0, ends - time.monotonic())
            return await self._classify(model, inputs, left_s, options)

        inputs = [request.inputs() for request in requests]
        first = [each[:1] if _has_long_query(each, model) else each for each in inputs]
        answers = await _classify_each(first, classify)
        rest = [
            each[len(asked) :] if all(map(_has_score, found)) else []
            for each, asked, found in zip(inputs, first, answers, strict=True)
        ]
        if any(rest):
            more = await _classify_each(rest, classify)
            answers = [found + others for found, others in zip(answers, more, strict=True)]
        if options.long_texts == "window" and reads_windows(model):
            plan = WindowPlan(model, self._windows)
            at_once = 1 if self._deadline_per_call else _LONG_TEXTS_AT_ONCE
            return await _read_all(plan, requests, answers, classify, reserve, at_once)
        return [_answer(request, found, model) for request, found in zip(requests, answers, strict=True)]

    async def _classify(
        self, model: Model, inputs: Sequence[ModelInput], deadline_s: float, options: CallOptions
    ) -> list[Answer]:
        if self._cache is None:
            return await self._source.classify(model, inputs, deadline_s)
        return await self._cache.classify(model, inputs, deadline_s, options)


async def _classify_each(inputs: Sequence[Sequence[ModelInput]], classify: Classify) -> list[list[Answer]]:
    """Answer the inputs of many requests, all in one go."""
    flat = [data for each in inputs for data in each]
    answers = iter(await classify(flat) if flat else ())
    return [[next(answers) for _ in each] for each in inputs]


def _has_long_query(inputs: Sequence[ModelInput], model: Model) -> bool:
    """Whether inputs are pairs of one query that probably leaves no room for their texts."""
    first = inputs[0] if len(inputs) > 1 else None
    return isinstance(first, Pair) and len(first.query) > _QUERY_BYTES_A_TOKEN * model.max_tokens


def _has_score(answer: Answer) -> bool:
    return isinstance(answer, RawScores) and answer.token_count != QUERY_TOO_LONG


def _answer(request: TaskRequest, answers: Sequence[Answer], model: Model) -> TaskAnswer | AiError:
    try:
        pairs = [_read(answer, model) for answer in answers]
    except AiError as exc:
        return without_frames(exc)
    if not isinstance(request, RerankRequest):
        return pairs[0]
    # By logits: those that differ may have the same probability.
    best = sorted(range(len(pairs)), key=lambda place: -pairs[place].logits[0])
    return Ranking([(place, pairs[place].scores[0][1]) for place in best[: request.top_k]], pairs)


async def _read_all(
    plan: WindowPlan,
    requests: Sequence[TaskRequest],
    answers: Sequence[Sequence[Answer]],
    classify: Classify,
    reserve: Reserve,
    at_once: int,
) -> list[TaskAnswer | AiError]:
    """Answer requests of which each has its first answers; long texts are read on, ``at_once`` at a time."""
    turns = asyncio.Semaphore(at_once)

    async def read_on(request: TextRequest, first: Answer) -> TaskAnswer | AiError:
        async with turns:
            return await _read_on(plan, request, first, classify, reserve)

    outcomes: list[TaskAnswer | AiError | None] = []
    reading: list[asyncio.Task[TaskAnswer | AiError]] = []
    for request, found in zip(requests, answers, strict=True):
        if isinstance(request, TextRequest) and plan.is_long(found[0]):
            outcomes.append(None)
            reading.append(asyncio.create_task(read_on(request, found[0])))
        else:
            outcomes.append(_answer(request, found, plan.model))
    try:
        read = iter(await asyncio.gather(*reading))
    finally:
        for task in reading:
            task.cancel()  # where one of them has raised, nobody awaits the others
    return [next(read) if outcome is None else outcome for outcome in outcomes]


async def _read_on(
    plan: WindowPlan, request: TextRequest, first: Answer, classify: Classify, reserve: Reserve
) -> Classification | AiError:
    """Answer a long text, whose first window has an answer, with all of its windows."""
    try:
        read = await plan.read(utf8(request.text), first, classify, reserve)
        windows = [_scored(raw, plan.model) for raw in read]
    except AiError as exc:
        return without_frames(exc)
    return Classification(
        scores=combine([window.scores for window in windows], plan.weights(read)),
        tokens=sum(window.tokens for window in windows),
        truncated=windows[-1].truncated,
        token_count=plan.token_count(read),
        cached=all_cached([window.cached for window in windows]),
        task=plan.model.task,
        timing=longest([window.timing for window in windows]),
        windows=len(windows),
    )


def _read(raw: Answer, model: Model) -> Classification:
    if isinstance(raw, AiError):
        raise raw
    if raw.token_count == QUERY_TOO_LONG:
        raise QueryTooLong(model.max_tokens)
    return _scored(raw, model)


def _scored(raw: RawScores, model: Model) -> Classification:
    try:
        scores = label_scores(raw.logits, model.labels, model.problem_type)
    except InvalidLogits as exc:
        _log.error("model %s: %s", model.name, exc)
        raise BackendFailed from exc
    return Classification(
        scores=scores,
        tokens=min(raw.token_count, model.max_tokens),
        truncated=raw.token_count > model.max_tokens,
        logits=raw.logits,
        token_count=raw.token_count,
        cached=raw.cached,
        task=model.task,
        timing=raw.timing,
    )


def all_cached(found: Sequence[bool | None]) -> bool | None:
    """Whether all of several answers are from the cache; None if there is no cache."""
    return None if all(cached is None for cached in found) else all(found)


def longest(timings: Sequence[Timing | None]) -> Timing | None:
    """Return the longest wait and the longest call among several: what their caller waited for at least."""
    known = [timing for timing in timings if timing is not None]
    if not known:
        return None
    return Timing(max(timing.queue_s for timing in known), max(timing.triton_s for timing in known))
