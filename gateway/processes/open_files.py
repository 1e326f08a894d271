"""How many connections the limit of open files leaves room for."""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress

from gateway.settings import ConfigurationError

MOST_CONNECTIONS = 16_384
"""What a worker takes unless told otherwise, if there is room."""
RESERVED = 256
"""Descriptors for everything else: Triton's channel, files, refusals, the interpreter's own."""

_COUNT_EVERY_S = 5.0
"""Counting the open files of a process takes a while when they are many."""


class OpenFiles:
    """How many of the files that this process may open are open."""

    def __init__(self) -> None:
        self._share = 0.0
        self._counted = -_COUNT_EVERY_S

    def share(self) -> float:
        """Return it as a share of the limit, 0…1, a few seconds old at most; 0 where nobody can tell."""
        if time.monotonic() - self._counted >= _COUNT_EVERY_S:
            self._counted = time.monotonic()
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            with suppress(OSError):
                opened = len(os.listdir("/proc/self/fd"))
                self._share = 0.0 if soft == resource.RLIM_INFINITY else opened / soft
        return self._share


def room_for_connections(wanted: int) -> int:
    """Return how many connections there may be, and raise the soft limit of open files for them.

    Args:
        wanted: the setting; 0 for as many as there is room for, up to MOST_CONNECTIONS.

    Raises:
        ConfigurationError: the hard limit leaves no room for as many as are wanted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = (2**31 if hard == resource.RLIM_INFINITY else hard) - RESERVED
    connections = wanted or max(1, min(room, MOST_CONNECTIONS))
    if connections > room and wanted:
        raise ConfigurationError(
            f"GATEWAY_MAX_CONNECTIONS is {wanted}, but this process may open {hard} files, and {RESERVED} of "
            "them are needed otherwise: lower it, or raise the limit (ulimit -n, LimitNOFILE=)."
        )
    if soft != resource.RLIM_INFINITY and soft < connections + RESERVED:
        # Where even that is not allowed, the bound still holds, and the system's own comes first.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(connections + RESERVED, hard), hard))
    return connections
