"""A request and a response, as the handlers see them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from gateway.domain.backend import Timing
from gateway.domain.errors import ClientDisconnected, TritonflareError

Header = tuple[bytes, bytes]
Address = tuple[str, int]

JSON = b"application/json"
"""Without a charset: the Workers binding takes only this exact value for JSON."""


class Request:
    """One HTTP request: what came, and what the layers learn on the way (for log and metrics).

    The connection fills in the body while it arrives, and tells when the caller is gone.
    """

    __slots__ = (
        "_changed",
        "_failure",
        "_hung_up",
        "ai_request_id",
        "all_headers",
        "answered",
        "api",
        "binding_form",
        "body",
        "client",
        "complete",
        "keep_alive",
        "lost",
        "method",
        "model_label",
        "on_answer",
        "on_wait",
        "params",
        "query_string",
        "raw_path",
        "ray_id",
        "route",
        "server",
        "timing",
        "trace_id",
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
        """The path as it came, still percent-encoded, without the query."""
        self.query_string = query_string
        self.all_headers = headers
        self.client = client
        self.server = server
        self.body = bytearray()
        """What there is of it so far."""
        self.complete = False
        """The whole body is there."""
        self.answered = False
        """What is still to come of the body is nobody's."""
        self.lost = False
        """The caller is gone."""
        self.keep_alive = True
        self.on_wait: Callable[[], None] | None = None
        """Called when somebody waits for more of the body."""
        self._changed: asyncio.Future[None] | None = None
        self._failure: Callable[[], TritonflareError] | None = None
        """Why its body will never be complete. No instance: with its traceback it would hold the request."""
        self._hung_up: Callable[[], None] | None = None

        self.ray_id = ""
        self.route = "none"
        self.api = True
        """Part of the API, as opposed to the operators' endpoints."""
        self.binding_form = False
        """Errors are rendered as a Workers binding reads them."""
        self.params: dict[str, str] = {}
        self.ai_request_id: str | None = None
        """Set once the request is for a model or has failed in the AI service; the answer carries it."""
        self.model_label = "none"
        """The model as a metrics label: bounded, whatever callers send."""
        self.timing: Timing | None = None
        """Where the time went that its texts took; None if nothing was sent for it."""
        self.trace_id: str | None = None
        """Of a request that is traced."""
        self.on_answer: Callable[[Response], None] | None = None
        """Called with the answer of a request that is traced."""

    def headers(self, name: bytes) -> list[str]:
        """Return all values of the header ``name`` (lower case)."""
        return [value.decode("latin-1") for key, value in self.all_headers if key == name]

    def query(self, name: str) -> str | None:
        """Return the last value of a query parameter, or None."""
        if not self.query_string:
            return None
        return dict(parse_qsl(self.query_string, keep_blank_values=True)).get(name)

    def retarget(self, path: str, query: str, headers: Sequence[Header] = ()) -> None:
        """Take the request for one to another path; ``headers`` come behind those that it has."""
        self.raw_path, self.query_string = path, query
        self.all_headers = [*self.all_headers, *headers]

    async def more(self) -> None:
        """Wait until more of the body is there.

        Raises:
            ClientDisconnected: the caller has left before its end.
            TritonflareError: no more will come, for what the connection gave as the reason.
        """
        if not self.lost and self._failure is None:
            if self.on_wait is not None:
                self.on_wait()
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
        if self.lost:
            raise ClientDisconnected
        if self._failure is not None:
            raise self._failure()

    def when_lost(self, callback: Callable[[], None] | None) -> None:
        """Have ``callback`` called once the caller has hung up, soon if that is so already."""
        self._hung_up = callback
        if callback is not None and self.lost:
            asyncio.get_running_loop().call_soon(callback)

    def add(self, part: bytes) -> None:
        """Take a part of the body."""
        self.body += part
        self._wake()

    def end(self) -> None:
        """Take the body for complete."""
        self.complete = True
        self._wake()

    def drop_body(self) -> None:
        """Let go of what came of the body: a connection, a cycle with its parser, may hold the request on."""
        self.body = bytearray()

    def fail(self, reason: Callable[[], TritonflareError]) -> None:
        """Tell whoever reads the body that no more of it comes."""
        self._failure = reason
        self._wake()

    def lose(self) -> None:
        """Tell whoever works on the request that nobody is left to answer."""
        self.lost = True
        self.drop_body()
        self._wake()
        if self._hung_up is not None:
            self._hung_up()

    def _wake(self) -> None:
        if self._changed is not None:
            if not self._changed.done():
                self._changed.set_result(None)
            self._changed = None


@dataclass(slots=True)
class Response:
    """One complete HTTP response."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: list[Header] = field(default_factory=list)
    code: int = 0
    """The API's error code, 0 for success."""
    is_file: bool = False
    """The same for everybody, with headers of its own for caches and browsers."""
