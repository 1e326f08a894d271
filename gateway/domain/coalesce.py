"""Coalescing: texts that arrive while the model server is busy leave together in the next call.

A text that finds no call under way leaves in the same turn of the event loop; all others wait, and each
slot that becomes free takes its share of them, the oldest first. A call costs the gateway and Triton
about as much for many texts as for one, and a lone request waits for nothing. While other calls keep the
model busy, a free slot waits a moment for more texts: callers whose answers left together come back
one after the other, and the first of them would take a call for itself.

A call that was sent is never cancelled: nobody may be left who waits for it, but Triton is at work on it all
the same, and it keeps its slot until the deadline of its last text (`slots`). So callers who give up cannot
have more under way than there are slots; ARCHITECTURE.md says what cancelling does to Triton.

Short, long and very long texts have queues and slots of their own, so that none wait for longer ones.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Protocol

from gateway.domain.backend import Backend, RawScores, Timing
from gateway.domain.catalogue import Model
from gateway.domain.errors import (
    AiError,
    BackendFailed,
    BackendUnavailable,
    DeadlineExceeded,
    Overloaded,
    without_frames,
)
from gateway.domain.slots import Call, CallSlots

_log = logging.getLogger("tritonflare.coalesce")

Answer = RawScores | AiError


class AnswerSource(Protocol):
    """Answers texts one by one, however they travel."""

    async def classify(self, model: Model, texts: Sequence[bytes], deadline_s: float) -> list[Answer]:
        """Run the model on ``texts`` (UTF-8); return for each, in order, its scores or its own error."""
        ...


ObserveCall = Callable[[int, float], None]
"""Told of each call how many texts it takes and how many seconds the oldest of them has waited."""

CALL_BYTES = 16 * 1024
"""Most text in one call, unless a single one is longer: half a dozen of the longest that are read whole."""
LONG_BYTES_PER_TOKEN = 4
"""Longer texts, for each token that the model reads, are long: most of them are cut, and cost the most."""
SHORT_BYTES = 64
"""Texts up to here are as good as equally long."""
GATHER_SHARE = 0.05
"""A free slot waits for this share of the time that calls take, while others are under way."""
LONGEST_GATHER_S = 0.001
"""Also the least that uvloop's timers tell apart: half of it and less is the next turn of the loop."""
_SMOOTHED_OVER = 8
"""Calls."""
_LEAST_DEAD = 64
HELD_S = 30.0
"""So long after the last deadline of its texts a call is given up as lost."""
_ALARM_PAUSE_S = 0.005
"""Least pause between two looks for texts whose time is over: under overload there is one at any moment."""


@dataclass(frozen=True, slots=True)
class CoalescingLimits:
    """See the settings of the same names."""

    call_slots: int
    max_call_texts: int
    call_length_ratio: float
    max_queue_s: float


class _Text:
    """A text on its way; its answer is set once, an error too, and cancelled if nobody waits for it."""

    __slots__ = ("answer", "arrived", "data", "ends", "entered", "queue", "sent")

    def __init__(
        self, queue: _Queue, data: bytes, arrived: float, ends: float, answer: asyncio.Future[Answer]
    ) -> None:
        self.queue = queue
        self.data = data
        self.arrived = arrived
        self.ends = ends
        self.answer = answer
        self.sent = False
        # For measuring: the loop's own clock (uvloop's) goes in steps of a millisecond.
        self.entered = time.perf_counter()


class _Call(Call):
    """Texts that were sent together."""

    __slots__ = ("sent", "texts")

    def __init__(self, texts: list[_Text], sent: float) -> None:
        super().__init__(max(text.ends for text in texts))
        self.texts = texts
        self.sent = sent


class _Queue:
    """Texts of one model and kind of length that wait, the oldest first, and its calls under way."""

    __slots__ = (
        "alarm",
        "alarm_at",
        "call_s",
        "dead",
        "gathering",
        "model",
        "scheduled",
        "slots",
        "waiting",
    )

    def __init__(self, model: Model, slots: int) -> None:
        self.model = model
        self.slots: CallSlots[_Call] = CallSlots(slots)
        self.waiting: deque[_Text] = deque()
        self.alarm: asyncio.Handle | None = None
        """Comes when the time of a text is over, wherever the text is by then."""
        self.alarm_at = math.inf
        self.scheduled = False
        """Texts leave at the end of this turn of the loop."""
        self.gathering: asyncio.Handle | None = None
        """Texts leave when this comes."""
        self.call_s = 0.0
        """Time that a call takes, smoothed."""
        self.dead = 0
        """How many of them nobody waits for any more."""

    def abandon(self, text: _Text) -> None:
        """Forget what a text holds, and every so often all that are dead, so that they cannot pile up.

        One that was sent is the server's.
        """
        if text.sent:
            return
        text.data = b""
        self.dead += 1
        if self.dead >= _LEAST_DEAD and 2 * self.dead > len(self.waiting):
            self.waiting = deque(text for text in self.waiting if not text.answer.done())
            self.dead = 0

    def expire(self, now: float) -> float:
        """Answer the texts whose time is over, and expire the calls; return when that of the next one is."""
        soonest = math.inf
        for text in chain(self.waiting, *(call.texts for call in self.slots.held)):
            if text.answer.done():
                continue
            if text.ends <= now:
                text.answer.set_result(DeadlineExceeded())
                self.abandon(text)
            else:
                soonest = min(soonest, text.ends)
        return min(soonest, self.slots.expire(now))  # of a call for which nobody may be left who waits

    def take(self, limits: CoalescingLimits, now: float) -> list[_Text]:
        """Remove the oldest text and those that fit it, up to this slot's share; the dead are dropped."""
        share = min(
            -(-len(self.waiting) // self.slots.free(now)), limits.max_call_texts, self.model.max_batch_size
        )
        taken: list[_Text] = []
        passed: list[_Text] = []
        least = most = room = 0.0
        while self.waiting and len(taken) < share:
            text = self.waiting.popleft()
            size = len(text.data)
            if text.answer.done():
                self.dead = max(0, self.dead - 1)
            elif text.ends <= now:
                text.answer.set_result(DeadlineExceeded())
            elif not taken:
                least = size / limits.call_length_ratio
                most = max(size, SHORT_BYTES) * limits.call_length_ratio
                room = CALL_BYTES - size
                taken.append(text)
            elif size <= room and least <= max(size, SHORT_BYTES) and size <= most:
                room -= size
                taken.append(text)
            else:
                passed.append(text)
        self.waiting.extendleft(reversed(passed))
        return taken


class Coalescer:
    """One text in, one answer out, over a Backend that takes many; for the event loop that runs it."""

    def __init__(
        self,
        backend: Backend,
        limits: CoalescingLimits,
        observe: ObserveCall = lambda texts, waited_s: None,
        answered: Callable[[Model], None] = lambda model: None,
        unavailable: Callable[[Model], None] = lambda model: None,
    ) -> None:
        """Coalesce texts for ``backend``.

        Args:
            backend: answers the calls.
            limits: see `CoalescingLimits`.
            observe: called for each call.
            answered: called when a call is answered in time.
            unavailable: called when a call fails because no server is available for the model.
        """
        self._backend = backend
        self._limits = limits
        self._observe = observe
        self._answered = answered
        self._unavailable = unavailable
        self._queues: dict[tuple[str, int], _Queue] = {}
        self._calls: dict[asyncio.Task[None], _Call] = {}

    async def classify(self, model: Model, texts: Sequence[bytes], deadline_s: float) -> list[Answer]:
        """Run the model on ``texts`` (UTF-8); return for each, in order, its scores or its own error.

        The texts may leave in different calls, and meet those of other requests. A call's worth of them
        waits at once, so that others get in between. When this coroutine is cancelled, texts that were
        not sent yet never are.

        Raises:
            Overloaded: texts have been waiting for too long, or too many calls are overdue; none of these
                was taken.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        queues = [self._queue(model, data) for data in texts]
        for queue in queues:
            late = queue.waiting and now - queue.waiting[0].arrived > self._limits.max_queue_s
            if late or queue.slots.is_exhausted:
                raise Overloaded
        at_once = self._limits.max_call_texts
        entering = zip(queues, texts, strict=True)
        waiting = [self._enter(*each, now + deadline_s, loop) for each in islice(entering, at_once)]
        answers: list[Answer] = []
        try:
            for each in entering:
                answers.append(await waiting[len(answers)].answer)
                waiting.append(self._enter(*each, now + deadline_s, loop))
            answers += [await text.answer for text in waiting[len(answers) :]]
        except asyncio.CancelledError:
            for text in waiting:
                # The one that was being waited for has been cancelled together with whoever waited.
                if text.answer.cancel() or text.answer.cancelled():
                    text.queue.abandon(text)
            raise
        return answers

    def _enter(self, queue: _Queue, data: bytes, ends: float, loop: asyncio.AbstractEventLoop) -> _Text:
        text = _Text(queue, data, loop.time(), ends, loop.create_future())
        if ends <= text.arrived:
            text.answer.set_result(DeadlineExceeded())
            return text
        queue.waiting.append(text)
        if ends < queue.alarm_at:
            self._set_alarm(queue, ends, loop)
        self._schedule(queue, loop)
        return text

    def _set_alarm(self, queue: _Queue, at: float, loop: asyncio.AbstractEventLoop) -> None:
        if queue.alarm is not None:
            queue.alarm.cancel()
        queue.alarm, queue.alarm_at = loop.call_at(at, self._expire, queue, loop), at

    def _expire(self, queue: _Queue, loop: asyncio.AbstractEventLoop) -> None:
        queue.alarm, queue.alarm_at = None, math.inf
        now = loop.time()
        soonest = queue.expire(now)
        if soonest < math.inf:
            self._set_alarm(queue, max(soonest, now + _ALARM_PAUSE_S), loop)
        self._schedule(queue, loop)  # slots may have become free

    @property
    def waiting(self) -> int:
        """Texts that wait for a call slot, those that nobody waits for any more included for a while."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    @property
    def calls(self) -> int:
        """Calls under way, those included that are overdue."""
        return len(self._calls)

    @property
    def overdue(self) -> int:
        """Calls that were not answered within the deadlines of their texts, and may still be."""
        return sum(call.overdue for call in self._calls.values())

    async def close(self) -> None:
        """Cancel the calls under way; whoever waits for them gets BackendFailed."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _queue(self, model: Model, data: bytes) -> _Queue:
        length = (len(data) > LONG_BYTES_PER_TOKEN * model.max_tokens) + (len(data) > CALL_BYTES)
        queue = self._queues.get((model.ensemble, length))
        if queue is None or (queue.model is not model and queue.model != model):
            # Texts that were meant for the model as it was keep their queue until it is empty.
            slots = max(1, self._limits.call_slots - length)
            queue = self._queues[model.ensemble, length] = _Queue(model, slots)
        return queue

    def _schedule(self, queue: _Queue, loop: asyncio.AbstractEventLoop) -> None:
        """Send at the end of this turn of the loop, or a moment later: what arrives until then goes along."""
        if queue.scheduled or not queue.slots.free(loop.time()) or not queue.waiting:
            return
        gather_s = min(GATHER_SHARE * queue.call_s, LONGEST_GATHER_S)
        if not queue.slots.held or not gather_s or len(queue.waiting) >= self._limits.max_call_texts:
            queue.scheduled = True
            loop.call_soon(self._send, queue, loop)
        elif queue.gathering is None:
            queue.gathering = loop.call_later(gather_s, self._send, queue, loop)

    def _send(self, queue: _Queue, loop: asyncio.AbstractEventLoop) -> None:
        queue.scheduled = False
        if queue.gathering is not None:
            queue.gathering.cancel()
            queue.gathering = None
        now = loop.time()
        while queue.slots.free(now) and queue.waiting:
            texts = queue.take(self._limits, now)
            if not texts:
                break
            sent = time.perf_counter()
            self._observe(len(texts), sent - texts[0].entered)
            call = _Call(texts, sent)
            for text in texts:
                text.sent = True
            queue.slots.hold(call, now)
            task = loop.create_task(self._answer(queue.model, texts, sent, loop))
            self._calls[task] = call
            # Not a finally inside: a task that is cancelled before its first step never gets there.
            task.add_done_callback(partial(self._done, queue, call, loop))

    def _done(
        self, queue: _Queue, call: _Call, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]
    ) -> None:
        """Free the slot; whatever happened, everybody has an answer now."""
        del self._calls[task]
        if not task.cancelled() and task.exception() is not None:
            _log.error("a call for %s failed", queue.model.name, exc_info=task.exception())
        for text in call.texts:
            if not text.answer.done():
                text.answer.set_result(BackendFailed())
        queue.slots.release(call)
        if not call.overdue:
            queue.call_s += (time.perf_counter() - call.sent - queue.call_s) / _SMOOTHED_OVER
        self._schedule(queue, loop)

    async def _answer(
        self, model: Model, texts: list[_Text], sent: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Set the answers of ``texts``; a call that fails is repeated for each of them alone."""
        ends = max(text.ends for text in texts)
        answers: Sequence[Answer]
        try:
            answers = await self._backend.classify(
                model, [text.data for text in texts], ends - loop.time() + HELD_S
            )
            if loop.time() < ends:
                self._answered(model)
        except BackendFailed as exc:
            if len(texts) > 1:
                # One after the other: a slot is for one call. What nobody wants any more is left out.
                for text in texts:
                    if not text.answer.done():
                        await self._answer(model, [text], sent, loop)
                return
            answers = [without_frames(exc)]
        except AiError as exc:
            if isinstance(exc, BackendUnavailable):
                self._unavailable(model)
            answers = [without_frames(exc)] * len(texts)
        _set_answers(texts, answers, sent)


def _set_answers(texts: Sequence[_Text], answers: Sequence[Answer], sent: float) -> None:
    now = time.perf_counter()
    for text, answer in zip(texts, answers, strict=True):
        if not text.answer.done():
            if isinstance(answer, RawScores):
                answer.timing = Timing(sent - text.entered, now - sent)
            text.answer.set_result(answer)
