"""Ask one text after the other, on one connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urlsplit

from loadtest.client import LoadError, Target
from loadtest.timeline.segments import Asked

_MOST_BYTES = 1 << 16
_WITHIN_S = 30.0


def ask(target: Target, texts: Sequence[str]) -> list[Asked]:
    """Ask each text alone; return when it was sent and answered.

    Raises:
        LoadError: an answer was not 200.
        OSError: the gateway does not answer.
    """
    address = urlsplit(target.url)
    asked = []
    opened = socket.create_connection((str(address.hostname), address.port or 80), _WITHIN_S)
    with closing(opened) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for text in texts:
            request = target.request(text)
            sent = time.monotonic_ns()
            connection.sendall(request)
            # The gateway sends an answer as a whole, and one of these fits into one read.
            answer = connection.recv(_MOST_BYTES)
            received = time.monotonic_ns()
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise LoadError(f"the gateway answered {answer[:40]!r}")
            asked.append(Asked(sent, received))
    return asked
