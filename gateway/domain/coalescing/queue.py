"""The queue of one model and length class: texts that wait, its call slots, and its timers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from gateway.domain.catalogue import Model
from gateway.domain.coalescing.schedule import EarliestTimer, GatherWindow
from gateway.domain.coalescing.slots import Call, CallSlots
from gateway.domain.coalescing.texts import QueuedText, WaitingTexts, expire
from gateway.domain.errors import BackendFailed

_EXPIRY_PAUSE_S = 0.005
"""Least pause between two passes over the deadlines: under overload, one passes at any moment."""


@dataclass(frozen=True, slots=True)
class CoalescingLimits:
    """See the settings of the same names."""

    call_slots: int
    max_call_texts: int
    call_length_ratio: float
    max_queue_s: float


class InferenceCall(Call):
    """Texts that were sent together."""

    __slots__ = ("sent", "texts")

    def __init__(self, texts: Sequence[QueuedText], sent: float) -> None:
        super().__init__(max([text.deadline for text in texts]))
        self.texts = texts
        self.sent = sent
        """By `time.perf_counter`."""


class ModelQueue:
    """Decides when texts are sent, and answers those whose deadline passes.

    Args:
        model: whose texts these are.
        length: their length class; the longer the texts, the fewer slots they have.
        limits: see `CoalescingLimits`.
        send: called when there are both waiting texts and free slots; takes texts with `take`.
    """

    __slots__ = (
        "__weakref__",
        "_deadline_timer",
        "_limits",
        "_most_texts",
        "_send_timer",
        "gather_window",
        "length",
        "model",
        "slots",
        "waiting",
    )

    def __init__(
        self,
        model: Model,
        length: int,
        limits: CoalescingLimits,
        send: Callable[[ModelQueue], None],
    ) -> None:
        self.model = model
        self.length = length
        self.slots: CallSlots[InferenceCall] = CallSlots(max(1, limits.call_slots - length))
        self.waiting = WaitingTexts()
        self.gather_window = GatherWindow()
        self._limits = limits
        self._most_texts = min(limits.max_call_texts, model.max_batch_size)
        self._send_timer = EarliestTimer(partial(send, self))
        self._deadline_timer = EarliestTimer(self._expire)

    def is_overloaded(self, now: float) -> bool:
        """Whether texts wait for too long, or the server has too many overdue calls, to accept more."""
        return self.waiting.waited_s(now) > self._limits.max_queue_s or self.slots.is_exhausted

    def enter(self, text: QueuedText, now: float) -> None:
        """Add a text; it is sent as soon as a slot is free."""
        self.waiting.append(text)
        if text.deadline < self._deadline_timer.at:
            self._deadline_timer.request(text.deadline)
        self.schedule(now)

    def schedule(self, now: float) -> None:
        """Arrange for the next call.

        Without a call under way it leaves at the end of this turn of the loop, so that texts of the same
        turn travel together; else after the gather window. Without a free slot it waits for a call to end,
        or for the next probe.
        """
        if not self.waiting:
            return
        if not self.slots.free(now):
            self._send_timer.request(self.slots.next_probe_at)
            return
        window_s = self.gather_window.seconds
        if not self.slots.held or not window_s or len(self.waiting) >= self._most_texts:
            self._send_timer.request_soon()
        else:
            self._send_timer.request(now + window_s)

    def take(self, free_slots: int, now: float) -> list[QueuedText]:
        """Remove the texts of the next call: one slot's share of all that wait, the oldest first."""
        share = min(-(-len(self.waiting) // free_slots), self._most_texts)
        return self.waiting.take(share, self._limits.call_length_ratio, now)

    def close(self) -> None:
        """Send nothing more; waiting texts are answered with BackendFailed."""
        self._send_timer.cancel()
        self._deadline_timer.cancel()
        self.waiting.answer_all(BackendFailed())

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        soonest = self.waiting.expire(now)
        for call in self.slots.held:
            soonest = min(soonest, expire(call.texts, now)[0])
        # A call keeps its slot until its last deadline, even when no request awaits it any more.
        soonest = min(soonest, self.slots.expire(now))
        self._deadline_timer.request(max(soonest, now + _EXPIRY_PAUSE_S))
        self.schedule(now)  # slots may have become free
