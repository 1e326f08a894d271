"""The open connections: how many there may be, and which of them makes room for one more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

_REFUSED_AT_ONCE = 64
"""So many are told that there is no room; more are dropped without a word, or telling would need room too."""


class Member(Protocol):
    """A connection, as the others see it."""

    def make_room(self) -> None:
        """Close now: no request is under way."""
        ...


@dataclass(frozen=True, slots=True)
class CrowdEvents:
    """What is told of the crowd, for the metrics."""

    made_room: Callable[[], None] = lambda: None
    refused: Callable[[], None] = lambda: None


class Crowd:
    """At most ``limit`` connections.

    One more takes the place of the one that has waited longest for a request to be complete: an idle
    connection of a client's pool, or somebody who sends a head byte by byte. If a request is under way on
    each of them, there is no room.
    """

    def __init__(self, limit: int, events: CrowdEvents = CrowdEvents()) -> None:
        self._limit = limit
        self._events = events
        self._open: set[Member] = set()
        self._resting: dict[Member, None] = {}
        """Those without a request, the longest first."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._open))

    @property
    def is_overfull(self) -> bool:
        """Whether as many are above the limit as may be told so."""
        return len(self._open) > self._limit + _REFUSED_AT_ONCE

    def enter(self, member: Member) -> bool:
        """Add a connection; tell whether there is room for it."""
        if len(self._open) >= self._limit and not self._make_room():
            self._open.add(member)
            self._events.refused()
            return False
        self._open.add(member)
        self._resting[member] = None
        return True

    def leave(self, member: Member) -> None:
        """Forget a connection that is closed."""
        self._open.discard(member)
        self._resting.pop(member, None)

    def works(self, member: Member) -> None:
        """A request of it is under way, or its last answer."""
        self._resting.pop(member, None)

    def rests(self, member: Member) -> None:
        """It waits for a request."""
        self._resting[member] = None

    def _make_room(self) -> bool:
        if not self._resting:
            return False
        oldest = next(iter(self._resting))
        self.leave(oldest)  # the transport tells only later
        self._events.made_room()
        oldest.make_room()
        return True
