"""Limits the open connections of a process, and the bytes of requests that they buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

DEFAULT_BUFFERED_BYTES = 128 * 1024 * 1024
_MAX_REFUSED = 64
"""Connections above the limit that get a refusal; further ones are closed without it, because to refuse
takes memory and a file descriptor too."""


class LimitedConnection(Protocol):
    """A connection that the limiter may close."""

    def evict(self) -> None:
        """Close now; no handler is running."""
        ...


@dataclass(frozen=True, slots=True)
class LimiterEvents:
    """Callbacks for metrics."""

    evicted: Callable[[], None] = lambda: None
    """An idle connection was closed in favour of another."""
    refused: Callable[[], None] = lambda: None
    """A connection was refused, because a request is in progress on each of the others."""


class ConnectionLimiter:
    """At most ``limit`` connections, which buffer at most ``limit_bytes`` of requests without a response.

    A connection is busy while the handler runs, and idle otherwise, also while a head arrives or the client
    does not read. A connection above the limit replaces one that lingers behind its last response, or else
    the one that has been idle for longest; if all are busy, it is refused. Likewise, bytes above the limit
    evict idle connections that buffer input, the oldest first; if that does not suffice, they are refused.
    """

    def __init__(
        self, limit: int, events: LimiterEvents = LimiterEvents(), limit_bytes: int = DEFAULT_BUFFERED_BYTES
    ) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._events = events
        self._open: set[LimitedConnection] = set()
        self._idle: dict[LimitedConnection, None] = {}
        """The longest idle first."""
        self._lingering: dict[LimitedConnection, None] = {}
        self._buffered: dict[LimitedConnection, int] = {}
        """Bytes of each connection that buffers any, in the order in which they began."""
        self.buffered_bytes = 0
        """Their sum."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[LimitedConnection]:
        return iter(tuple(self._open))

    @property
    def has_max_refused(self) -> bool:
        """Whether more connections are being refused than may be."""
        return len(self._open) > self._limit + _MAX_REFUSED

    def add(self, connection: LimitedConnection) -> bool:
        """Add an idle connection; return False if it is refused. It counts as open until `remove`."""
        admitted = len(self._open) < self._limit or self._evict_one()
        self._open.add(connection)
        if admitted:
            self._idle[connection] = None
        else:
            self._events.refused()
        return admitted

    def remove(self, connection: LimitedConnection) -> None:
        """Remove a connection that is closed."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._lingering.pop(connection, None)
        self.buffered_bytes -= self._buffered.pop(connection, 0)

    def mark_busy(self, connection: LimitedConnection) -> None:
        """Protect a connection from eviction: a request is in progress."""
        self._idle.pop(connection, None)

    def mark_idle(self, connection: LimitedConnection) -> None:
        """Allow a connection to be evicted, after those that are idle already."""
        self._idle[connection] = None

    def mark_lingering(self, connection: LimitedConnection) -> None:
        """Allow a connection to be evicted, before all idle ones: its last response is written."""
        self._idle.pop(connection, None)
        self._lingering[connection] = None

    def set_buffered(self, connection: LimitedConnection, count: int) -> bool:
        """Set the number of bytes that a connection buffers; return False if they exceed the limit."""
        more = count - self._buffered.get(connection, 0)
        if more > 0 and not self._has_room(more):
            self._evict_buffering(more, connection)
            if not self._has_room(more):
                return False
        self.buffered_bytes += more
        if count:
            self._buffered[connection] = count
        else:
            self._buffered.pop(connection, None)
        return True

    def _has_room(self, more: int) -> bool:
        return self.buffered_bytes + more <= self._limit_bytes

    def _evict_buffering(self, more: int, asking: LimitedConnection) -> None:
        for connection in [each for each in self._buffered if each in self._idle and each is not asking]:
            if self._has_room(more):
                return
            self._evict(connection)

    def _evict_one(self) -> bool:
        evictable = self._lingering or self._idle
        if not evictable:
            return False
        self._evict(next(iter(evictable)))
        return True

    def _evict(self, connection: LimitedConnection) -> None:
        self.remove(connection)  # its transport reports the close only later
        self._events.evicted()
        connection.evict()
