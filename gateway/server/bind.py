"""Binds listening sockets: one alone on its port, or one for each of several processes."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway.server.listener import BACKLOG

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - for comparison, not bound


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Bind a socket, before anything else starts, so that a wrong address is reported first.

    Args:
        host: name or IP address.
        port: 0 selects a free one.
        shared: only reserve the port, for several sockets of `another`. The socket does not listen, because
            the kernel would assign connections to it.

    Raises:
        OSError: the address does not exist or is in use.
    """
    family, kind, proto, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Two sockets with SO_REUSEADDR can bind the same port, but only one can listen on it.
        sock.listen(BACKLOG)
        return _reservation(sock) if shared else sock
    except OSError:
        sock.close()
        raise


def _reservation(taken: socket.socket) -> socket.socket:
    """Replace the only socket of a port by one that reserves it and allows others beside it.

    With SO_REUSEPORT from the start, two gateways could share a port by mistake. So it is set once the
    port is known to belong to this one alone.
    """
    with taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved = another(taken)
        # With SO_REUSEADDR, a socket that does not listen would not stop another program from binding.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return reserved


def another(reserved: socket.socket) -> socket.socket:
    """Bind another socket to a port that `bind` reserved, to listen on it."""
    sock = socket.socket(reserved.family, reserved.type, reserved.proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(reserved.getsockname())
    except OSError:
        sock.close()
        raise
    return sock


def base_url(sock: socket.socket, scheme: str = "http") -> str:
    """Return the URL at which a client on this machine reaches a bound socket."""
    host, port = sock.getsockname()[:2]
    host = _WILDCARDS.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@contextmanager
def closing_all(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Close ``sockets`` on exit."""
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()
