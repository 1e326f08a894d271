"""How many connections the limit of open files leaves room for."""

from __future__ import annotations

import resource
from contextlib import suppress

from gateway.settings import ConfigurationError

MOST_CONNECTIONS = 16_384
"""What a worker takes unless told otherwise, if there is room."""
RESERVED = 256
"""Descriptors for everything else: Triton's channel, files, refusals, the interpreter's own."""


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
