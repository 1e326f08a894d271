"""What access and telemetry need of a request, whatever its protocol."""

from __future__ import annotations

from typing import Protocol

from gateway.server.message import Address


class HeaderSource(Protocol):
    """The headers of an HTTP request, or the metadata of a gRPC call."""

    client: Address | None
    """Address and port of the peer; None if it has none (a Unix socket)."""

    def headers(self, name: bytes) -> list[str]:
        """Return all values of the header ``name`` (lower case)."""
        ...
