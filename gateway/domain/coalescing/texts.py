"""Texts that wait for a call: their order, their deadlines, and those that were abandoned."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterable
from itertools import chain

from gateway.domain.backend import Answer
from gateway.domain.coalescing.grouping import CallGroup, may_share
from gateway.domain.errors import DeadlineExceeded
from gateway.domain.inputs import ModelInput, Window

_FEWEST_COMPACTED = 64
"""Abandoned texts that are kept before the queue is rebuilt without them."""


class QueuedText:
    """A text from its arrival to its answer.

    ``answer`` is set once, an error included; it is cancelled when the request ends first.
    """

    __slots__ = ("answer", "arrived", "context", "data", "deadline", "entered", "is_waiting")

    def __init__(
        self,
        data: ModelInput,
        context: object | None,
        arrived: float,
        deadline: float,
        answer: asyncio.Future[Answer],
    ) -> None:
        self.data = data
        self.context = context
        """Opaque; identifies the request to the `CallTracer`."""
        self.arrived = arrived
        """On the loop's clock, as ``deadline`` is."""
        self.deadline = deadline
        self.answer = answer
        self.is_waiting = False
        """In a queue, and not abandoned."""
        # For measuring: the loop's own clock (uvloop's) goes in steps of a millisecond.
        self.entered = time.perf_counter()


class WaitingTexts:
    """A queue of texts, the oldest first, and one of windows, which have every other call.

    Windows leave by their deadlines: a text that was read half goes on before others are begun. If all took
    turns, under overload none would end before its deadline.
    """

    __slots__ = ("_abandoned", "_texts", "_windows", "_windows_next")

    def __init__(self) -> None:
        self._windows: deque[QueuedText] = deque()
        self._texts: deque[QueuedText] = deque()
        self._windows_next = True
        self._abandoned = 0
        """How many of them `abandon` was called for."""

    def __len__(self) -> int:
        """How many wait, including abandoned ones that are not removed yet."""
        return len(self._windows) + len(self._texts)

    def waited_s(self, now: float) -> float:
        """For how long no slot has taken the oldest text that is no window; 0 if there is none.

        An abandoned text counts as well: a free slot would have removed it.
        """
        return now - self._texts[0].arrived if self._texts else 0.0

    def append(self, text: QueuedText) -> None:
        """Add a text."""
        text.is_waiting = True
        if not isinstance(text.data, Window):
            self._texts.append(text)
            return
        place = len(self._windows)
        while place and self._windows[place - 1].deadline > text.deadline:
            place -= 1
        self._windows.insert(place, text)

    def abandon(self, text: QueuedText) -> None:
        """Release the content of a text whose request has ended; does nothing once it was sent.

        Abandoned texts are removed when they are more than half of the queue, so that they cannot pile up.
        """
        if not text.is_waiting:
            return
        text.is_waiting = False
        text.data, text.context = b"", None
        self._abandoned += 1
        if self._abandoned >= _FEWEST_COMPACTED and 2 * self._abandoned > len(self):
            self._remove_answered()

    def expire(self, now: float) -> float:
        """Answer and remove the texts whose deadline has passed; return the next deadline, else infinity."""
        soonest, expired = expire(chain(self._windows, self._texts), now)
        if expired:
            self._remove_answered()
        return soonest

    def take(self, share: int, length_ratio: float, now: float) -> list[QueuedText]:
        """Remove the first text and those that fit in one call with it, at most ``share``.

        Texts with an answer are removed on the way, and those past their deadline answered. The texts that
        do not fit keep their places.
        """
        turns = [self._windows, self._texts] if self._windows_next else [self._texts, self._windows]
        for texts in turns:
            if taken := self._take(texts, share, length_ratio, now):
                self._windows_next = texts is self._texts
                return taken
        return []

    def _take(
        self, texts: deque[QueuedText], share: int, length_ratio: float, now: float
    ) -> list[QueuedText]:
        taken: list[QueuedText] = []
        passed: list[QueuedText] = []
        group: CallGroup | None = None
        while texts and len(taken) < share:
            text = texts.popleft()
            if text.answer.done():
                self._abandoned -= not text.is_waiting
                text.is_waiting = False
            elif text.deadline <= now:
                text.answer.set_result(DeadlineExceeded())
                text.is_waiting = False
            elif not taken:
                taken.append(text)
            else:
                if group is None:
                    group = CallGroup(len(taken[0].data), length_ratio)
                joins = may_share(taken[0].data, text.data) and group.accepts(len(text.data))
                (taken if joins else passed).append(text)
        texts.extendleft(reversed(passed))
        for text in taken:
            text.is_waiting = False
        return taken

    def answer_all(self, answer: Answer) -> None:
        """Empty the queue; every text that still has no answer gets this one."""
        for text in chain(self._windows, self._texts):
            text.is_waiting = False
            if not text.answer.done():
                text.answer.set_result(answer)
        self._windows.clear()
        self._texts.clear()
        self._abandoned = 0

    def _remove_answered(self) -> None:
        self._windows, self._texts = _waiting(self._windows), _waiting(self._texts)
        self._abandoned = 0


def _waiting(texts: deque[QueuedText]) -> deque[QueuedText]:
    """Return those without an answer; the others no longer wait."""
    kept: deque[QueuedText] = deque()
    for text in texts:
        if text.answer.done():
            text.is_waiting = False
        else:
            kept.append(text)
    return kept


def expire(texts: Iterable[QueuedText], now: float) -> tuple[float, int]:
    """Answer the texts whose deadline has passed.

    Returns:
        The next deadline of a text without an answer, else infinity; and how many were answered.
    """
    soonest, expired = math.inf, 0
    for text in texts:
        if text.answer.done():
            continue
        if text.deadline <= now:
            text.answer.set_result(DeadlineExceeded())
            expired += 1
        elif text.deadline < soonest:
            soonest = text.deadline
    return soonest, expired
