"""What the server exchanges with its application: requests, responses, and the handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl

from gateway.server.errors import PeerDisconnected, RequestError

Header = tuple[bytes, bytes]
Address = tuple[str, int]

JSON = b"application/json"
"""Without a charset: the Workers binding takes only this exact value for JSON."""


class RequestBody:
    """The body of a request while it arrives: the connection appends to it, and one reader waits for it."""

    __slots__ = ("_changed", "_failure", "complete", "data", "on_wait")

    def __init__(self) -> None:
        self.data = bytearray()
        """What has arrived."""
        self.complete = False
        """Whether ``data`` is the whole body."""
        self.on_wait: Callable[[], None] | None = None
        """Called when the reader waits for more."""
        self._changed: asyncio.Future[None] | None = None
        self._failure: type[RequestError] | None = None
        """Why it will never be complete. Not an instance: its traceback would refer to the request."""

    async def more(self) -> None:
        """Wait until more has arrived.

        Raises:
            RequestError: no more will arrive; PeerDisconnected where the client closed the connection.
        """
        if self._failure is None:
            if self.on_wait is not None:
                self.on_wait()
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
        if self._failure is not None:
            raise self._failure

    def append(self, part: bytes) -> None:
        """Add bytes that have arrived."""
        self.data += part
        self._wake()

    def finish(self) -> None:
        """Mark the body as complete."""
        self.complete = True
        self._wake()

    def discard(self) -> None:
        """Free what has arrived, because a connection may refer to the request for longer."""
        self.data = bytearray()

    def fail(self, reason: type[RequestError]) -> None:
        """Have the reader raise ``reason``: no more will arrive."""
        self._failure = reason
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            if not self._changed.done():
                self._changed.set_result(None)
            self._changed = None


class HttpRequest:
    """The head of one HTTP request, its body, and whether its client is still connected."""

    __slots__ = (
        "_on_disconnect",
        "all_headers",
        "answered",
        "body",
        "client",
        "disconnected",
        "keep_alive",
        "method",
        "query_string",
        "raw_path",
        "server",
    )

    def __init__(
        self,
        method: str,
        raw_path: str,
        query_string: str = "",
        headers: Sequence[Header] = (),
        *,
        client: Address | None = None,
        server: Address | None = None,
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        """The path as received, still percent-encoded, without the query."""
        self.query_string = query_string
        self.all_headers = headers
        """Names in lower case."""
        self.client = client
        self.server = server
        self.body = RequestBody()
        self.answered = False
        """A response has been written; the rest of the body is discarded."""
        self.disconnected = False
        """The client closed the connection."""
        self.keep_alive = True
        self._on_disconnect: Callable[[], None] | None = None

    def headers(self, name: bytes) -> list[str]:
        """Return all values of the header ``name`` (lower case)."""
        return [value.decode("latin-1") for key, value in self.all_headers if key == name]

    def query(self, name: str) -> str | None:
        """Return the last value of a query parameter, or None."""
        if not self.query_string:
            return None
        return dict(parse_qsl(self.query_string, keep_blank_values=True)).get(name)

    def expects_continue(self) -> bool:
        """Return whether the client waits for 100 (Continue) with the body (RFC 9110, section 10.1.1)."""
        return [value.lower() for value in self.headers(b"expect")] == ["100-continue"]

    def retarget(self, path: str, query: str, headers: Sequence[Header] = ()) -> None:
        """Replace path and query, and append ``headers``."""
        self.raw_path, self.query_string = path, query
        self.all_headers = [*self.all_headers, *headers]

    def release(self) -> None:
        """Free headers and body."""
        self.all_headers = ()
        self.body.discard()

    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Set a callback for when the client disconnects; if it already has, the callback runs soon."""
        self._on_disconnect = callback
        if callback is not None and self.disconnected:
            asyncio.get_running_loop().call_soon(callback)

    def disconnect(self) -> None:
        """Note that the client has disconnected, and notify the application."""
        self.disconnected = True
        self.body.discard()
        self.body.fail(PeerDisconnected)
        if self._on_disconnect is not None:
            self._on_disconnect()


@dataclass(slots=True)
class Response:
    """One complete HTTP response."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: list[Header] = field(default_factory=list)
    code: int = 0
    """The error code of the application, for its logs and metrics; 0 for success."""
    is_static: bool = False
    """The same file for every client; ``headers`` have what caches and browsers need."""


class RequestHandler(Protocol):
    """The application: responds to requests. Neither method raises."""

    async def __call__(self, request: HttpRequest) -> tuple[Response, Sequence[Header]]:
        """Return the response to a request, and all headers except those that concern the connection."""
        ...

    def refuse(self, error: RequestError, peer: Address | None) -> tuple[Response, Sequence[Header]]:
        """Return the response to input of ``peer`` that is not a request."""
        ...
