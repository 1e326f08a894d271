"""Answers inputs of batches with what is idle: live requests go first."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.domain.backend import Answer, AnswerSource
from gateway.domain.catalogue import Model
from gateway.domain.coalescing.grouping import LONG_BYTES_PER_TOKEN
from gateway.domain.errors import BackendUnavailable, DeadlineExceeded, Overloaded, without_frames
from gateway.domain.inputs import ModelInput
from gateway.domain.options import NO_OPTIONS, CallOptions

IDLE_TARGET_S = 0.05
"""How long a call of a batch should take at most while there are no live requests."""
LIVE_TARGET_S = 0.01
"""The same while there are: a live text may have to wait for that long."""
MOST_TRIES = 10
"""Calls that an input may fail with, although the model answers others, until their error is its outcome."""
_LIVE_S = 1.0
"""How long after a live request others are expected."""
_MAX_WAIT_S = 0.1
"""How long it waits for a moment without live texts, where no text waits for the same model."""
_BUSY_S = 2.0
"""How long it waits for a model that live requests keep busy, while batches for others could run."""
_BUSY_WITH_ANSWERS_S = 30.0
"""The same where answers would be lost."""
_POLL_S = 0.005
"""Pause between two checks whether there is something idle."""
_RETRY_S = 0.5
_MOST_FAILURES = 10_000
_INPUT_COST = 32
_FIRST_BUDGET = 16 * _INPUT_COST


class ModelNotReady(Exception):
    """The model does not answer now, or another version has taken its name; its inputs can wait."""


class ModelBusy(ModelNotReady):
    """Live requests keep the model busy."""


Classify = Callable[[Model, Sequence[ModelInput], float, CallOptions], Awaitable[list[Answer]]]
"""See `AnswerCache.classify`."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What the calls for a chunk have in common."""

    model: Model
    deadline_s: float
    options: CallOptions


@dataclass(slots=True)
class _Failure:
    error: Answer
    """The last one."""
    count: int = 1


class IdleSource:
    """An AnswerSource for texts that can wait, over the one of live requests.

    It hands over as much at a time as can be answered in `IDLE_TARGET_S`, or `LIVE_TARGET_S`; how much that
    is, it learns from the calls before. It retries what failed because a server was away, overloaded or slow.

    Args:
        source: answers live requests too; a cache may heed the options.
        is_idle: whether nothing waits for the model, and it has room for a call.
        in_flight: how many live texts are in progress. Those of this source are none of them: they would take
            places from live requests, which then were refused.
        is_available: whether the model is still served under its name, and answers.
        most_inputs: in one call.
    """

    def __init__(
        self,
        source: Classify,
        is_idle: Callable[[Model], bool],
        in_flight: Callable[[], int],
        is_available: Callable[[Model], bool],
        most_inputs: int,
    ) -> None:
        self._source = source
        self._is_idle = is_idle
        self._in_flight = in_flight
        self._is_available = is_available
        self._most_inputs = most_inputs
        self._budget = float(_FIRST_BUDGET)
        """Cost of one call."""
        self._live_at = -_LIVE_S
        self._failures: dict[bytes, _Failure] = {}
        """By a hash of the input; they outlast `ModelNotReady`."""

    def with_options(self, options: CallOptions) -> AnswerSource:
        """Return this source for the calls of one chunk, which have these options.

        Once one of them was answered, the others wait longer for a busy model: that answer would be lost.
        """
        return _Chunk(self, options)

    async def classify(
        self,
        model: Model,
        texts: Sequence[ModelInput],
        deadline_s: float,
        options: CallOptions = NO_OPTIONS,
        *,
        has_answers: bool = False,
    ) -> list[Answer]:
        """Run the model on ``texts``; return for each, in order, its scores or its own error.

        Args:
            model: see `AnswerSource`.
            texts: see `AnswerSource`.
            deadline_s: of each call; there is none for all of them.
            options: of each call.
            has_answers: whether its caller has answers that would be lost.

        Raises:
            ModelNotReady: the answers so far are lost. Failures are remembered for the same texts.
            ModelBusy: the same, because of live requests.
        """
        job = _Job(model, deadline_s, options)
        answers: list[Answer] = []
        while len(answers) < len(texts):
            part = self._part(model, texts, len(answers))
            busy_s = _BUSY_WITH_ANSWERS_S if answers or has_answers else _BUSY_S
            answers += await self._answers(job, part, busy_s)
        self._forget(texts)
        return answers

    def _part(self, model: Model, texts: Sequence[ModelInput], start: int) -> Sequence[ModelInput]:
        """Return what is handed over next; an input that has failed before is alone.

        An input may end the server whenever it is computed. Alone it takes no other input with it, and only
        its own failures are counted.
        """
        end, left = start, self._budget
        while end < min(len(texts), start + self._most_inputs) and (end == start or left > 0):
            has_failed = bool(self._failures) and _digest(texts[end]) in self._failures
            if has_failed and end > start:
                break
            left -= _cost(model, texts[end])
            end += 1
            if has_failed:
                break
        return texts[start:end]

    async def _answers(self, job: _Job, part: Sequence[ModelInput], busy_s: float) -> list[Answer]:
        """Answer one part, until each input has an outcome that would not change."""
        failure = self._failures.get(_digest(part[0])) if self._failures else None
        if failure is not None:
            return [await self._retried(job, part[0], failure)]
        answers = await self._call(job, part, busy_s)
        for place, answer in enumerate(answers):
            if _is_retryable(answer):
                self._failures[_digest(part[place])] = _Failure(answer)
        for place, text in enumerate(part):
            if _is_retryable(answers[place]):
                failure = self._failures[_digest(text)]
                answers[place] = await self._retried(job, text, failure)
        return answers

    async def _retried(self, job: _Job, text: ModelInput, failure: _Failure) -> Answer:
        """Try an input again that has failed, unless it has failed often enough."""
        while failure.count < MOST_TRIES:
            await asyncio.sleep(_RETRY_S)
            (answer,) = await self._call(job, (text,))
            if not _is_retryable(answer):
                return answer
            failure.count += 1
            failure.error = answer
        return failure.error

    def _forget(self, texts: Sequence[ModelInput]) -> None:
        """Forget failures of texts that have outcomes, and now and then all of those that others answered."""
        if len(self._failures) > _MOST_FAILURES:
            self._failures.clear()
        for text in texts if self._failures else ():
            self._failures.pop(_digest(text), None)

    async def _call(
        self, job: _Job, part: Sequence[ModelInput], busy_s: float = _BUSY_WITH_ANSWERS_S
    ) -> list[Answer]:
        while True:
            await self._wait_until_idle(job.model, busy_s)
            began = time.monotonic()
            try:
                answers = await self._source(job.model, part, job.deadline_s, job.options)
            except Overloaded as exc:
                without_frames(exc)
                await asyncio.sleep(_RETRY_S)
                continue
            seconds = time.monotonic() - began
            self._learn(sum(_cost(job.model, text) for text in part), seconds)
            if self._is_busy():
                await asyncio.sleep(
                    min(seconds, IDLE_TARGET_S)
                )  # half of the time is for live requests alone
            return answers

    def _is_busy(self) -> bool:
        """Whether live requests are to be expected."""
        return time.monotonic() - self._live_at < _LIVE_S

    async def _wait_until_idle(self, model: Model, busy_s: float) -> None:
        """Wait until no live text is in progress; where there always are some, until none waits.

        Raises:
            ModelNotReady: it does not answer.
            ModelBusy: texts wait for it, or it has no room for a call, for ``busy_s``.
        """
        began = time.monotonic()
        while True:
            if not self._is_available(model):
                raise ModelNotReady
            is_live = self._observe_live_texts()
            waited_s = time.monotonic() - began
            if self._is_idle(model):
                if not is_live or waited_s >= _MAX_WAIT_S:
                    return
            elif waited_s >= busy_s:
                raise ModelBusy
            await asyncio.sleep(_POLL_S)

    def _observe_live_texts(self) -> bool:
        """Note whether there are any."""
        is_live = self._in_flight() > 0
        if is_live:
            self._live_at = time.monotonic()
        return is_live

    def _learn(self, cost: int, seconds: float) -> None:
        """Adapt the cost of a call to the time that this one took."""
        self._observe_live_texts()
        target_s = LIVE_TARGET_S if self._is_busy() else IDLE_TARGET_S
        # What was cut short by the end of the inputs says little about a larger call: at most double it.
        wanted = cost * min(2.0, target_s / max(seconds, 1e-6))
        self._budget = max(float(_INPUT_COST), wanted)


class _Chunk:
    """An AnswerSource for the calls of one chunk."""

    def __init__(self, source: IdleSource, options: CallOptions) -> None:
        self._source = source
        self._options = options
        self._has_answers = False

    async def classify(self, model: Model, texts: Sequence[ModelInput], deadline_s: float) -> list[Answer]:
        """See `IdleSource.classify`."""
        answers = await self._source.classify(
            model, texts, deadline_s, self._options, has_answers=self._has_answers
        )
        self._has_answers = True
        return answers


def _cost(model: Model, text: ModelInput) -> int:
    """Estimate what an input costs: bytes up to what the model reads, and something for each input."""
    return _INPUT_COST + min(len(text), LONG_BYTES_PER_TOKEN * model.max_tokens)


def _digest(text: ModelInput) -> bytes:
    return hashlib.sha256(bytes(text)).digest()


def _is_retryable(answer: Answer) -> bool:
    """Whether this is an error, and the same input may be answered later."""
    return isinstance(answer, BackendUnavailable | DeadlineExceeded | Overloaded)
