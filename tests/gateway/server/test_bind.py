"""Binding, reserving and sharing addresses."""

from __future__ import annotations

import socket

import pytest

from gateway.server.bind import another, base_url, bind


def test_a_reserved_port_accepts_further_sockets_of_this_program_only() -> None:
    with bind("127.0.0.1", 0, shared=True) as reserved:
        port = reserved.getsockname()[1]
        for shared in (False, True):
            with pytest.raises(OSError, match="Address already in use"):
                bind("127.0.0.1", port, shared=shared)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with another(reserved) as one, another(reserved) as other:
            one.listen()
            other.listen()
            socket.create_connection(("127.0.0.1", port)).close()
            with pytest.raises(OSError, match="Address already in use"):
                bind("127.0.0.1", port, shared=True)


def test_a_port_on_which_another_socket_listens_is_not_reserved() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="Address already in use"):
            bind("127.0.0.1", taken.getsockname()[1], shared=True)


@pytest.mark.parametrize(
    ("host", "start"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:")]
)
def test_the_url_is_one_that_a_client_on_this_machine_can_use(host: str, start: str) -> None:
    with bind(host, 0) as sock:
        assert base_url(sock) == f"{start}{sock.getsockname()[1]}"
