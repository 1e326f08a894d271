"""A request, a response, and reading a bounded body, on Starlette's types.

Starlette's parts without its application: every request would pay for that one (ARCHITECTURE.md has
the measurement), and the path must be split before it is decoded, which it does the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from gateway.domain.errors import BodyTooLarge, ClientDisconnected
from gateway.http.encoding import gunzip, is_gzip

Header = tuple[bytes, bytes]

_LINGER_S = 1.0

JSON = b"application/json"
"""Without a charset: the Workers binding takes only this exact value for JSON."""


class Request:
    """One HTTP request: the raw scope, and what the layers learn on the way (for log and metrics)."""

    __slots__ = (
        "ai_request_id",
        "api",
        "binding_form",
        "body_read",
        "method",
        "model_label",
        "params",
        "ray_id",
        "receive",
        "route",
        "scope",
    )

    def __init__(self, scope: Scope, receive: Receive, ray_id: str) -> None:
        self.scope = scope
        self.receive = receive
        self.ray_id = ray_id
        self.body_read = False
        self.method: str = scope["method"]
        self.route = "none"
        self.api = True
        """Part of the API, as opposed to the operators' endpoints."""
        self.binding_form = False
        """Errors are rendered as a Workers binding reads them."""
        self.params: dict[str, str] = {}
        self.ai_request_id: str | None = None
        """Set once the request has reached the AI service."""
        self.model_label = "none"
        """The model as a metrics label: bounded, whatever callers send."""

    def retarget(self, path: str, query: str, headers: Sequence[Header] = ()) -> None:
        """Take the request for one to another path; ``headers`` come behind those that it has."""
        self.scope = {
            **self.scope,
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": [*self.scope["headers"], *headers],
        }

    @property
    def raw_path(self) -> str:
        """The path as it came, still percent-encoded, without the query."""
        raw: bytes = self.scope["raw_path"]
        return raw.decode("latin-1")

    def headers(self, name: bytes) -> list[str]:
        """Return all values of the header ``name`` (lower case)."""
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == name]

    def query(self, name: str) -> str | None:
        """Return the last value of a query parameter, or None."""
        raw: bytes = self.scope["query_string"]
        if not raw:
            return None
        value: str | None = QueryParams(raw).get(name)
        return value


@dataclass(slots=True)
class Response:
    """One complete HTTP response."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: list[Header] = field(default_factory=list)
    code: int = 0
    """The API's error code, 0 for success."""


def headers_of(request: Request, response: Response) -> list[Header]:
    """Return the headers that every answer carries, the ray id among them, and then its own."""
    return [
        (b"content-type", response.content_type),
        (b"content-length", b"%d" % len(response.body)),
        (b"cf-ray", request.ray_id.encode()),
        *response.headers,
    ]


async def send_response(request: Request, response: Response, send: Send) -> None:
    """Send ``response``.

    A request refused before its body was read is answered at once, and the body is thrown away before
    the exchange ends: closing a connection on unread bytes resets it, and the caller would see that
    instead of the answer.
    """
    headers = headers_of(request, response)
    if not request.body_read and request.headers(b"expect"):
        # Who asked before sending the body may take this for a no and never send it.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": not request.body_read})
    if not request.body_read:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_discard_body(request.receive), _LINGER_S)
        await send({"type": "http.response.body"})


async def _discard_body(receive: Receive) -> None:
    while (await receive()).get("more_body", False):
        pass


def _exceeds(length: str, limit_bytes: int) -> bool:
    """Whether an announced length is one and too large; the server has checked the real one already."""
    if not (length.isascii() and length.isdigit()):
        return False
    digits = length.lstrip("0") or "0"
    return len(digits) > len(str(limit_bytes)) or int(digits) > limit_bytes


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Read the whole body; one in gzip is decompressed.

    Raises:
        BodyTooLarge: announced, real or decompressed size above ``limit_bytes``.
        MalformedBody: the body begins as gzip and is not.
        ClientDisconnected: the caller left before the end.
    """
    announced = request.headers(b"content-length")
    if announced and _exceeds(announced[0], limit_bytes):
        raise BodyTooLarge(limit_bytes)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            request.body_read = True
            break
    body = b"".join(parts)
    return gunzip(body, limit_bytes) if is_gzip(body) else body
