"""Call slots: how many calls of a model may be under way, and when a lost call frees its slot."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

CALLS_PER_SLOT = 4
"""Bound on the calls at the server for each slot of a model, overdue ones included."""
PROBE_PAUSE_S = 1.0
"""Least pause between two calls that probe whether a server answers again."""


class Call:
    """A call to the server."""

    __slots__ = ("deadline", "overdue")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        """The last deadline of its texts, on the loop's clock."""
        self.overdue = False


_Call = TypeVar("_Call", bound=Call)


class CallSlots(Generic[_Call]):
    """A call holds a slot until it is answered, but no longer than until the last deadline of its texts.

    After that it is overdue: its answer may be lost, or the server is slow and more calls would only pile
    up there. The slots then work like a half-open circuit breaker: where overdue calls leave no slots, one
    call at a time probes, and when one is answered before its deadline, all slots are free that no call
    holds. Overdue calls are bounded, and given up after a while.
    """

    __slots__ = ("_half_open", "_probe_at", "held", "limit", "overdue")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Slots."""
        self.held: set[_Call] = set()
        """The calls that hold a slot."""
        self.overdue = 0
        """Calls that lost their slot and have not ended yet."""
        self._half_open = False
        self._probe_at = -math.inf

    def free(self, now: float) -> int:
        """Return how many calls may begin at ``now``."""
        under_way = len(self.held) + self.overdue
        if not self._half_open:
            free = self.limit - len(self.held)
        elif under_way < self.limit:
            free = self.limit - under_way
        else:
            free = int(not self.held and now >= self._probe_at)
        return max(0, min(free, CALLS_PER_SLOT * self.limit - under_way))

    @property
    def is_exhausted(self) -> bool:
        """Whether no slot becomes free until an overdue call ends."""
        return self.overdue >= CALLS_PER_SLOT * self.limit

    @property
    def next_probe_at(self) -> float:
        """When a slot becomes free although no call ends; infinity if none does."""
        return self._probe_at if self._half_open and not self.held and not self.is_exhausted else math.inf

    def hold(self, call: _Call, now: float) -> None:
        """Give a slot to a call that begins at ``now``."""
        if self._half_open:
            self._probe_at = now + PROBE_PAUSE_S
        self.held.add(call)

    def release(self, call: _Call) -> None:
        """Note that a call has ended."""
        if call.overdue:
            self.overdue -= 1
        else:
            self.held.discard(call)
            self._half_open = False

    def expire(self, now: float) -> float:
        """Mark calls past their deadline as overdue and free their slots; return the next deadline."""
        for call in [call for call in self.held if call.deadline <= now]:
            call.overdue = self._half_open = True
            self.overdue += 1
            self.held.discard(call)
        return min((call.deadline for call in self.held), default=math.inf)
