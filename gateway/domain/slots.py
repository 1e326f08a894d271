"""Call slots: how many calls of one model the server may have at once, and what becomes of lost ones."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

CALLS_PER_SLOT = 4
"""The server has at most so many calls of a model for each of its slots, overdue ones included."""
PROBE_PAUSE_S = 1.0
"""At least, between two calls that find out whether a server answers again."""


class Call:
    """A call to the server."""

    __slots__ = ("ends", "overdue")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        """When the last deadline of its texts is over, on the loop's clock."""
        self.overdue = False


_Call = TypeVar("_Call", bound=Call)


class CallSlots(Generic[_Call]):
    """A call holds a slot until it is answered, but no longer than until the last deadline of its texts.

    After that it is overdue. Its answer may be lost; or the server is slow, and more calls would only pile
    up there. So it is as with a half-open circuit breaker: where overdue calls leave no slots, one call at
    a time probes, and when one is answered before its deadline, all slots are free that no call holds.
    Overdue calls are bounded, and given up after a while.
    """

    __slots__ = ("_half_open", "_probe_at", "held", "limit", "overdue")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Slots."""
        self.held: set[_Call] = set()
        """The calls that hold a slot."""
        self.overdue = 0
        """How many do so no more and are not over yet."""
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
        """None will be free until a call that is overdue comes to its end."""
        return self.overdue >= CALLS_PER_SLOT * self.limit

    def hold(self, call: _Call, now: float) -> None:
        """Give a slot to a call that begins at ``now``."""
        if self._half_open:
            self._probe_at = now + PROBE_PAUSE_S
        self.held.add(call)

    def release(self, call: _Call) -> None:
        """The call is over."""
        if call.overdue:
            self.overdue -= 1
        else:
            self.held.discard(call)
            self._half_open = False

    def expire(self, now: float) -> float:
        """Take the slots of calls that are overdue; return when the next one will be."""
        for call in [call for call in self.held if call.ends <= now]:
            call.overdue = self._half_open = True
            self.overdue += 1
            self.held.discard(call)
        return min((call.ends for call in self.held), default=math.inf)
