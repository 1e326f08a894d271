"""The states of an HTTP connection."""

from __future__ import annotations

from enum import Enum, auto


class ConnectionState(Enum):
    """What a connection is doing."""

    IDLE = auto()
    """It waits for a request; what still arrives of a body that was not needed is discarded."""
    READING_HEAD = auto()
    """A request head has begun to arrive."""
    READING_BODY = auto()
    """The handler runs, and the body of its request is arriving."""
    RESPONDING = auto()
    """The handler runs, and its request is complete. Pipelined input is buffered, and not parsed."""
    LAST_RESPONSE = auto()
    """The handler runs, and the connection closes behind its response. Input is discarded."""
    LINGERING = auto()
    """The last response is written, and the sending side closed. Input is discarded."""
    CLOSED = auto()
    """The transport is closing, and sends what is left in its buffer."""
