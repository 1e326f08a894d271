"""One call, as access, telemetry and the servicer see it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote

from gateway.pipeline.caller import Caller
from gateway.server.message import Address
from gateway.telemetry.record import RequestRecord, new_ray_id

METHOD = "gRPC"
"""In place of an HTTP method, in logs and traces."""


class ServerContext(Protocol):
    """The part of ``grpc.aio.ServicerContext`` that is used here."""

    def peer(self) -> str:
        """Return the address of the client, ``ipv4:192.0.2.1:443``."""
        ...

    def time_remaining(self) -> float | None:
        """Return the seconds until the client's deadline; None without one."""
        ...


class Call:
    """One call, or one request on a stream.

    Args:
        route: the path of its method.
        metadata: its invocation metadata.
    """

    def __init__(self, route: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._metadata = tuple(metadata)
        self.started = time.perf_counter()
        self.tokenless = False
        """Of a method for operators, which needs no token."""
        self.watcher = False
        """Of a method without a token whose calls stay open."""
        self.client: Address | None = None
        self._ends: float | None = None
        """The client's own deadline, on the monotonic clock."""
        self.account = ""
        """The account whose rate it counts against; see `authenticate`."""
        self.record = RequestRecord(METHOD, new_ray_id(), route=route, is_grpc=True)

    def headers(self, name: bytes) -> list[str]:
        """Return all values of a metadata key (lower case)."""
        key = name.decode()
        return [value for found, value in self._metadata if found == key and isinstance(value, str)]

    def attach(self, context: ServerContext) -> None:
        """Read the client's address and deadline."""
        self.client = _address(context.peer())
        self._set_patience(context.time_remaining())

    @property
    def patience_s(self) -> float | None:
        """How long the client still waits; None without a deadline of its own."""
        return None if self._ends is None else self._ends - time.monotonic()

    def _set_patience(self, patience_s: float | None) -> None:
        self._ends = None if patience_s is None else time.monotonic() + patience_s

    @property
    def caller(self) -> Caller:
        """The call as the pipeline sees it; a client that cancels it ends its task."""
        return Caller(self.account, self.record, patience_s=self.patience_s)

    def following(self, patience_s: float | None) -> Call:
        """Return a call for the next request on the same stream."""
        call = Call(self.record.route, self._metadata)
        call.client, call.record.client = self.client, self.record.client
        call._set_patience(patience_s)
        return call

    def identity(self) -> tuple[tuple[str, str], ...]:
        """Return the ids of the request, as metadata of its response."""
        ray = (("cf-ray", self.record.ray_id),)
        request_id = self.record.ai_request_id
        return ray if request_id is None else (*ray, ("cf-ai-req-id", request_id))


def _address(peer: str) -> Address | None:
    scheme, _, rest = peer.partition(":")
    host, _, port = unquote(rest).rpartition(":")
    if scheme not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return host.strip("[]"), int(port)
