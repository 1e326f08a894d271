"""The open connections: how many there may be, what they may keep, and which of them makes room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

DEFAULT_BUFFERED_BYTES = 128 * 1024 * 1024
_REFUSED_AT_ONCE = 64
"""So many are told that there is no room; more are dropped without a word, or telling would need room too."""


class Member(Protocol):
    """A connection, as the others see it."""

    def make_room(self) -> None:
        """Close now: no request is under way."""
        ...


@dataclass(frozen=True, slots=True)
class LimiterEvents:
    """What is told of the limiter, for the metrics."""

    made_room: Callable[[], None] = lambda: None
    refused: Callable[[], None] = lambda: None


class ConnectionLimiter:
    """At most ``limit`` connections, which keep at most ``limit_bytes`` of requests without an answer.

    One more takes the place of the one that has waited longest for a request to be complete: an idle
    connection of a client's pool, or somebody who sends a head byte by byte. If a request is under way on
    each of them, there is no room. It is the same with memory: heads that have been arriving for longest make
    room; where bodies and requests under way take all of it, there is none.
    """

    def __init__(
        self, limit: int, events: LimiterEvents = LimiterEvents(), limit_bytes: int = DEFAULT_BUFFERED_BYTES
    ) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._events = events
        self._open: set[Member] = set()
        self._idle: dict[Member, None] = {}
        """Those without a request, the longest first."""
        self._kept: dict[Member, int] = {}
        """Bytes that they keep, whoever began first in front."""
        self.buffered_bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._open))

    @property
    def is_over_limit(self) -> bool:
        """Whether as many are above the limit as may be told so."""
        return len(self._open) > self._limit + _REFUSED_AT_ONCE

    def add(self, member: Member) -> bool:
        """Add a connection; tell whether there is room for it."""
        if len(self._open) >= self._limit and not self._make_room():
            self._open.add(member)
            self._events.refused()
            return False
        self._open.add(member)
        self._idle[member] = None
        return True

    def remove(self, member: Member) -> None:
        """Forget a connection that is closed."""
        self._open.discard(member)
        self._idle.pop(member, None)
        self.buffered_bytes -= self._kept.pop(member, 0)

    def buffers(self, member: Member, count: int) -> bool:
        """Note how many bytes it keeps now; tell whether there is room for them."""
        more = count - self._kept.get(member, 0)
        if more > 0 and self.buffered_bytes + more > self._limit_bytes:
            self._free(more, member)
            if self.buffered_bytes + more > self._limit_bytes:
                return False
        self.buffered_bytes += more
        if count:
            self._kept[member] = count
        else:
            self._kept.pop(member, None)
        return True

    def _free(self, more: int, asking: Member) -> None:
        for member in [member for member in self._kept if member in self._idle and member is not asking]:
            if self.buffered_bytes + more <= self._limit_bytes:
                return
            self.remove(member)
            self._events.made_room()
            member.make_room()

    def mark_busy(self, member: Member) -> None:
        """A request of it is under way, or its last answer."""
        self._idle.pop(member, None)

    def mark_idle(self, member: Member) -> None:
        """It waits for a request."""
        self._idle[member] = None

    def _make_room(self) -> bool:
        if not self._idle:
            return False
        oldest = next(iter(self._idle))
        self.remove(oldest)  # the transport tells only later
        self._events.made_room()
        oldest.make_room()
        return True
