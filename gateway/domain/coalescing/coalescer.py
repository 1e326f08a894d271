"""Coalescing: texts that arrive while the model server is busy leave together in the next call.

A text that finds no call under way leaves in the same turn of the event loop. All others wait, and each
slot that becomes free takes its share of them, the oldest first. A call costs the gateway and Triton
about as much for many texts as for one, and a lone request waits for nothing. While other calls keep the
model busy, a free slot waits a moment for more texts: callers whose answers left together come back
one after the other, and the first of them would occupy a call alone.

A call that was sent is never cancelled. Triton computes it even if no request awaits it any more, so it keeps
its slot until the deadline of its last text (`slots`). Callers that disconnect therefore cannot have more
under way than there are slots; docs/decisions/never-cancel.md describes what cancelling does to Triton.

`queue` decides when a call leaves, `texts` keeps order and deadlines, `grouping` decides which texts share
a call, `slots` counts calls. Here calls are made and their answers handed out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet

from gateway.domain.backend import Answer, Backend, RawScores, Timing
from gateway.domain.catalogue import Model
from gateway.domain.coalescing.grouping import length_class
from gateway.domain.coalescing.queue import CoalescingLimits, InferenceCall, ModelQueue
from gateway.domain.coalescing.texts import QueuedText
from gateway.domain.errors import (
    AiError,
    BackendFailed,
    BackendUnavailable,
    DeadlineExceeded,
    Overloaded,
    without_frames,
)
from gateway.domain.inputs import ModelInput, Window

_log = logging.getLogger("tritonflare.coalesce")

OVERDUE_TIMEOUT_S = 30.0
"""Time after the last deadline of its texts until a call is given up as lost."""

ObserveCall = Callable[[int, float], None]
"""Receives for each call the number of its texts, and the seconds that the oldest of them has waited."""


class CallTracer(Protocol):
    """Connects requests with the calls that carry their texts; the coalescer only passes contexts on."""

    def request_context(self) -> object | None:
        """Return what is to travel with the texts of the request that the running task answers."""
        ...

    def call(self, model: Model, contexts: Sequence[object | None]) -> AbstractContextManager[None]:
        """Enclose a call in the running task; ``contexts`` are those of its texts, one each."""
        ...


class Coalescer:
    """An AnswerSource over a Backend; belongs to the event loop that runs it.

    Args:
        backend: answers the calls.
        limits: see `CoalescingLimits`.
        observe: called for each call.
        answered: called when a call is answered in time.
        unavailable: called when a call fails because no server is available for the model.
        tracer: traces the calls.
    """

    def __init__(
        self,
        backend: Backend,
        limits: CoalescingLimits,
        observe: ObserveCall = lambda texts, waited_s: None,
        answered: Callable[[Model], None] = lambda model: None,
        unavailable: Callable[[Model], None] = lambda model: None,
        tracer: CallTracer | None = None,
    ) -> None:
        self._backend = backend
        self._limits = limits
        self._observe = observe
        self._answered = answered
        self._unavailable = unavailable
        self._tracer = tracer
        self._queues: dict[tuple[str, int], ModelQueue] = {}
        """By ensemble and length class."""
        self._every_queue: WeakSet[ModelQueue] = WeakSet()
        """Also those of replaced models, as long as they have texts or calls."""
        self._calls: dict[asyncio.Task[None], InferenceCall] = {}
        self._closed = False

    async def classify(self, model: Model, texts: Sequence[ModelInput], deadline_s: float) -> list[Answer]:
        """Run the model on ``texts``; return for each, in order, its scores or its own error.

        The texts may leave in different calls, together with those of other requests. At most one call's
        worth of them waits at a time, so that other requests get in between. When this coroutine is
        cancelled, texts that were not sent yet never are.

        Raises:
            Overloaded: texts have been waiting for too long, or too many calls are overdue; none of these
                was accepted.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        queues = self._queues_for(model, texts, now)
        deadline = now + deadline_s
        context = None if self._tracer is None else self._tracer.request_context()
        at_once = self._limits.max_call_texts
        queued: list[QueuedText] = []
        answers: list[Answer] = []
        try:
            for queue, data in zip(queues, texts, strict=True):
                if len(queued) >= at_once:
                    answers.append(await queued[len(answers)].answer)
                    now = loop.time()
                text = QueuedText(data, context, now, deadline, loop.create_future())
                queued.append(text)
                self._enter(queue, text, now)
            for text in queued[len(answers) :]:
                answers.append(await text.answer)
        except asyncio.CancelledError:
            for queue, text in zip(queues, queued, strict=False):
                # The answer that was being awaited has been cancelled together with this task.
                if text.answer.cancel() or text.answer.cancelled():
                    queue.waiting.abandon(text)
            raise
        return answers

    @property
    def waiting(self) -> int:
        """Texts that wait for a call slot, including abandoned ones that are not removed yet."""
        return sum(len(queue.waiting) for queue in self._every_queue)

    def is_idle(self, model: Model, spare_slots: int = 0) -> bool:
        """Whether no text waits for this version of a model, and it could begin a call at once.

        Args:
            model: the model.
            spare_slots: how many slots have to stay free beside that call, where there are as many.
        """
        now = asyncio.get_running_loop().time()
        queues = (queue for queue in self._every_queue if queue.model == model)
        return all(
            not queue.waiting and queue.slots.free(now) > min(spare_slots, queue.slots.limit - 1)
            for queue in queues
        )

    @property
    def calls(self) -> int:
        """Calls under way, overdue ones included."""
        return len(self._calls)

    @property
    def overdue(self) -> int:
        """Calls that were not answered within the deadlines of their texts, and may still be."""
        return sum(call.overdue for call in self._calls.values())

    async def close(self) -> None:
        """Cancel the calls under way and send no more; texts without an answer get BackendFailed."""
        self._closed = True
        for queue in self._every_queue:
            queue.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _queues_for(self, model: Model, texts: Sequence[ModelInput], now: float) -> list[ModelQueue]:
        """Return the queue of each text.

        Raises:
            Overloaded: one of them accepts no text. It always accepts a window: the text of that was accepted
                before, and refusing it in the middle would waste what was computed.
        """
        queues = [self._queue(model, data) for data in texts]
        for queue, data in zip(queues, texts, strict=True):
            if not isinstance(data, Window) and queue.is_overloaded(now):
                raise Overloaded
        return queues

    def _enter(self, queue: ModelQueue, text: QueuedText, now: float) -> None:
        if text.deadline <= now:
            text.answer.set_result(DeadlineExceeded())
        elif self._closed:
            text.answer.set_result(BackendFailed())
        else:
            queue.enter(text, now)

    def _queue(self, model: Model, data: ModelInput) -> ModelQueue:
        length = length_class(data, model)
        queue = self._queues.get((model.ensemble, length))
        if queue is None or (queue.model is not model and queue.model != model):
            queue = self._queues[model.ensemble, length] = self._queue_of(model, length)
        return queue

    def _queue_of(self, model: Model, length: int) -> ModelQueue:
        """Return the queue that this version of the model still has, else a new one.

        A replaced version keeps its queue, so that its texts never travel with those of the new one, and
        requests for both versions do not multiply the slots.
        """
        for queue in self._every_queue:
            if queue.model == model and queue.length == length:
                return queue
        queue = ModelQueue(model, length, self._limits, self._send)
        self._every_queue.add(queue)
        return queue

    def _send(self, queue: ModelQueue) -> None:
        """Begin calls while there are free slots and texts."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while queue.waiting:
            free = queue.slots.free(now)
            if not free:
                queue.schedule(now)
                break
            texts = queue.take(free, now)
            if not texts:
                break
            call = InferenceCall(texts, time.perf_counter())
            self._observe(len(texts), call.sent - texts[0].entered)
            queue.slots.hold(call, now)
            task = loop.create_task(self._run(queue.model, texts, call.deadline, call.sent))
            self._calls[task] = call
            # Not a finally inside: a task that is cancelled before its first step never gets there.
            task.add_done_callback(partial(self._done, queue, call))

    def _done(self, queue: ModelQueue, call: InferenceCall, task: asyncio.Task[None]) -> None:
        """Free the slot of a call that has ended; texts that it left without an answer get BackendFailed."""
        del self._calls[task]
        if not task.cancelled() and task.exception() is not None:
            _log.error("a call for %s failed", queue.model.name, exc_info=task.exception())
        for text in call.texts:
            if not text.answer.done():
                text.answer.set_result(BackendFailed())
        queue.slots.release(call)
        if not call.overdue:
            queue.gather_window.observe(time.perf_counter() - call.sent)
        queue.schedule(task.get_loop().time())

    async def _run(self, model: Model, texts: Sequence[QueuedText], deadline: float, sent: float) -> None:
        """Call the backend and set the answers; a call that fails is repeated for each text alone."""
        loop = asyncio.get_running_loop()
        answers: Sequence[Answer]
        try:
            answers = await self._call(model, texts, deadline - loop.time() + OVERDUE_TIMEOUT_S)
            if loop.time() < deadline:
                self._answered(model)
        except BackendFailed as exc:
            if len(texts) > 1:
                # One after the other, because a slot is for one call.
                for text in texts:
                    if not text.answer.done():
                        await self._run(model, [text], text.deadline, sent)
                return
            answers = [without_frames(exc)]
        except AiError as exc:
            if isinstance(exc, BackendUnavailable):
                self._unavailable(model)
            answers = [without_frames(exc)] * len(texts)
        _set_answers(texts, answers, sent)

    def _call(
        self, model: Model, texts: Sequence[QueuedText], deadline_s: float
    ) -> Coroutine[Any, Any, Sequence[RawScores]]:
        call = self._backend.classify(model, [text.data for text in texts], deadline_s)
        if self._tracer is None:
            return call
        return _within(self._tracer.call(model, [text.context for text in texts]), call)


async def _within(
    context: AbstractContextManager[None], call: Coroutine[Any, Any, Sequence[RawScores]]
) -> Sequence[RawScores]:
    with context:
        return await call


def _set_answers(texts: Sequence[QueuedText], answers: Sequence[Answer], sent: float) -> None:
    if len(answers) != len(texts):
        raise ValueError(f"{len(answers)} answers to {len(texts)} texts")
    now = time.perf_counter()
    for text, answer in zip(texts, answers, strict=True):
        if not text.answer.done():
            if isinstance(answer, RawScores):
                answer.timing = Timing(sent - text.entered, now - sent)
            text.answer.set_result(answer)
