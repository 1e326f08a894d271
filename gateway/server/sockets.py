"""Asks the kernel about sockets that are about to be closed."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import suppress


def has_unread(fd: int) -> bool:
    """Return whether input, or FIN, waits in the kernel; to close then would send RST for input."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def accept_all(listening: socket.socket) -> Iterator[socket.socket]:
    """Accept the connections in the backlog, which the kernel would reset when the listener closes."""
    with suppress(OSError):  # the backlog is empty, or the file descriptors are exhausted
        while True:
            accepted, _ = listening.accept()
            accepted.setblocking(False)
            yield accepted
