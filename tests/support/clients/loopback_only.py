"""Run a program in a network namespace of its own, which has a loopback device and no other.

Only the sockets that this module hands out lead from there to here: a socket belongs to the namespace where
it was made, whoever holds it. Run as a program, this is the half inside: ``DOOR PORT COMMAND…``.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

UNSHARE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
_SET_FLAGS, _UP = 0x8914, 1  # SIOCSIFFLAGS and IFF_UP of <net/if.h>


@contextmanager
def loopback_only(url: str, folder: Path) -> Iterator[tuple[list[str], Callable[[str], str]]]:
    """Let a program in a namespace of its own reach ``url`` at the same address, and nothing else.

    Yields what to write before the program's command, and a function that asks a server inside for ``/``:
    from its URL to the body. ``folder`` takes a socket.
    """
    require_namespaces()
    port = urlsplit(url).port
    assert port
    given: list[socket.socket] = []

    def get(inner: str) -> str:
        channel, _ = door.accept()
        with channel:
            devices, descriptors, _, _ = socket.recv_fds(channel, 4096, 2)
        listener, client = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        given.append(listener)
        assert devices.decode() == "lo"
        threading.Thread(target=_serve, args=(listener, port), daemon=True).start()
        with client:
            client.settimeout(30)
            client.connect(("127.0.0.1", urlsplit(inner).port))
            connection = http.client.HTTPConnection("127.0.0.1")
            connection.sock = client
            connection.request("GET", "/", headers={"Connection": "close"})
            with connection.getresponse() as response:
                return response.read().decode()

    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(30)
        door.bind(str(folder / "door"))
        door.listen()
        try:
            yield [*UNSHARE, sys.executable, __file__, str(folder / "door"), str(port)], get
        finally:
            for listener in given:
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
                listener.close()


def require_namespaces() -> None:
    """Skip where a namespace cannot be made; fail in CI."""
    try:
        subprocess.run([*UNSHARE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"no network namespace can be made here: {error}"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)


def _serve(listener: socket.socket, port: int) -> None:
    while True:
        try:
            inner, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_join, args=(inner, port), daemon=True).start()


def _join(inner: socket.socket, port: int) -> None:
    """Copy both ways until either end closes."""
    with inner, socket.create_connection(("127.0.0.1", port)) as outer, suppress(OSError):
        while ready := select.select([inner, outer], [], [])[0]:
            for source in ready:
                data = source.recv(65536)
                if not data:
                    return
                (outer if source is inner else inner).sendall(data)


def _enter(door: str, port: int, command: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh", b"lo", _UP))
    devices = " ".join(name for _, name in socket.if_nameindex())
    listener, client = socket.create_server(("127.0.0.1", port)), socket.socket()
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(door)
        socket.send_fds(channel, [devices.encode()], [listener.fileno(), client.fileno()])
    listener.close()
    client.close()
    os.execvp(command[0], command)


if __name__ == "__main__":
    _enter(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
