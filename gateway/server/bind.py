"""Binds sockets before anything starts, alone on their port or several beside each other."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway.server.listener import BACKLOG

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Bind before anything starts, so that a wrong address is found first.

    Args:
        host: the address.
        port: the port; 0 takes a free one.
        shared: reserve the port for several sockets of `another` and do not listen: who listens gets
            connections.

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
        # From here on the port is taken: two that only bind it could both believe so.
        sock.listen(BACKLOG)
        return _reservation(sock) if shared else sock
    except OSError:
        sock.close()
        raise


def _reservation(taken: socket.socket) -> socket.socket:
    """Exchange the only socket of its port for one that keeps the port and may have others beside it.

    SO_REUSEPORT from the start would let two gateways share a port without knowing; so it is set when the
    port is known to be ours alone.
    """
    with taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved = another(taken)
        # What does not listen would not keep others away, if it went on saying that addresses are reused.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return reserved


def another(reserved: socket.socket) -> socket.socket:
    """Bind one more socket to a port that `bind` reserved, to listen on."""
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
    """Spell the address of a bound socket as a client on this machine would."""
    host, port = sock.getsockname()[:2]
    host = _WILDCARDS.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@contextmanager
def closing_all(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Close ``sockets`` at the end."""
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()
