"""The number of connections that the limit of open files allows."""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress

from gateway.settings import ConfigurationError

MOST_CONNECTIONS = 16_384
"""Default for each worker, if the limit of open files allows it."""
RESERVED = 256
"""Descriptors for everything else: Triton's channel, files, refused connections, the interpreter's own."""

_COUNT_EVERY_S = 5.0
"""Counting the open files of a process is slow when there are many."""


class OpenFiles:
    """Measures how many files of this process are open, against its limit."""

    def __init__(self) -> None:
        self._share = 0.0
        self._counted = -_COUNT_EVERY_S

    def share(self) -> float:
        """Return the share of the limit, 0 to 1, at most a few seconds old; 0 if it cannot be measured."""
        if time.monotonic() - self._counted >= _COUNT_EVERY_S:
            self._counted = time.monotonic()
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            with suppress(OSError):
                opened = len(os.listdir("/proc/self/fd"))
                self._share = 0.0 if soft == resource.RLIM_INFINITY else opened / soft
        return self._share


def grpc_connection_limit(wanted: int) -> int:
    """Return the largest number of gRPC connections: ``wanted``, but at most a quarter of the open files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if hard == resource.RLIM_INFINITY else max(1, min(wanted, (hard - RESERVED) // 4))


def room_for_connections(wanted: int, reserved_connections: int = 0) -> int:
    """Return the largest number of connections, and raise the soft limit of open files for them.

    Args:
        wanted: the setting; 0 for as many as the limit allows, up to MOST_CONNECTIONS.
        reserved_connections: connections of the gRPC server, which need files too.

    Raises:
        ConfigurationError: the hard limit does not allow as many as are wanted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserved = RESERVED + reserved_connections
    room = (2**31 if hard == resource.RLIM_INFINITY else hard) - reserved
    connections = wanted or max(1, min(room, MOST_CONNECTIONS))
    if connections > room and wanted:
        raise ConfigurationError(
            f"GATEWAY_MAX_CONNECTIONS is {wanted}, but this process may open {hard} files, and {reserved} of "
            "them are reserved: lower it, or raise the limit (ulimit -n, LimitNOFILE=)."
        )
    if soft != resource.RLIM_INFINITY and soft < connections + reserved:
        # Without permission to raise it, the system's limit is reached before this bound.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(connections + reserved, hard), hard))
    return connections
