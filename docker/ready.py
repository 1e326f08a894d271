#!/usr/bin/env python3
"""Health check of a gateway in its container: exit status 0 if ``/readyz`` answers 200, else 1.

Asks the port that the container's environment names, by TLS if the gateway has a certificate. It runs every
few seconds in images without bytecode of the standard library, so it imports little (`python -I -S`): 50 ms
of CPU instead of 200 with ``http.client``.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_S = 4.0
_REQUEST = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def main() -> int:
    """Run the check; print the status line or the reason."""
    port = int(os.environ.get("GATEWAY_PORT") or 8787)
    try:
        with _connected(port) as connection:
            connection.sendall(_REQUEST)
            with connection.makefile("rb") as answer:
                status = answer.readline(200).decode("latin-1").strip()
    except OSError as error:
        sys.stdout.write(f"no answer: {error}\n")
        return 1
    sys.stdout.write(f"{status}\n")
    return 0 if status.split(" ")[1:2] == ["200"] else 1


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    if os.environ.get("GATEWAY_TLS_CERTIFICATE"):
        import ssl  # noqa: PLC0415 (slow to import, and seldom needed)

        # The certificate is for the public name, and the peer is this container.
        return ssl._create_unverified_context().wrap_socket(connection)  # noqa: S323
    return connection


if __name__ == "__main__":
    sys.exit(main())
