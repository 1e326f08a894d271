"""What only the kernel knows of sockets that are about to be closed."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import suppress


def has_unread(fd: int) -> bool:
    """Whether something has come that nobody has read yet; closing on it resets the peer."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def accept_all(listening: socket.socket) -> Iterator[socket.socket]:
    """Accept the connections that wait in the kernel; closing the listener would reset them."""
    with suppress(OSError):  # none is left, or no file descriptor is
        while True:
            accepted, _ = listening.accept()
            accepted.setblocking(False)
            yield accepted
