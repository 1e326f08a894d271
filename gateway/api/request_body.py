"""Reading a bounded request body, compressed or not."""

from __future__ import annotations

from gateway.access.admission import Admission
from gateway.decompression import Coding, decompress
from gateway.domain.errors import BodyTooLarge
from gateway.pipeline.deadline import RequestDeadline
from gateway.server.message import HttpRequest


class BodyReader:
    """Reads the bodies of requests before these take their places in flight.

    So a slow sender does not block other requests. At most ``limit`` bodies are on their
    way; one more ends the oldest of them, which had the most time: slow senders push each other out, and
    what they fill memory with is bounded.
    """

    def __init__(self, admission: Admission, limit_bytes: int, limit: int) -> None:
        self._admission = admission
        self._limit_bytes = limit_bytes
        self._limit = limit
        self._arriving: dict[RequestDeadline, None] = {}

    async def read(
        self,
        request: HttpRequest,
        deadline: RequestDeadline,
        *,
        deflate: bool = False,
        limit_bytes: int | None = None,
    ) -> bytes:
        """Read the whole body, unless there is no place in flight for what it asks.

        Args:
            request: with the body.
            deadline: of the request.
            deflate: decompress bodies in deflate, too.
            limit_bytes: instead of that of all bodies.

        Raises:
            Overloaded: there is none; the body is not read.
            DeadlineExceeded: too many others came after it.
            BodyTooLarge, MalformedBody, ClientDisconnected: see `read_body`.
        """
        self._admission.check()
        most = self._limit_bytes if limit_bytes is None else limit_bytes
        if request.body.complete:
            return _whole_body(request, most, deflate=deflate)
        if len(self._arriving) >= self._limit:
            oldest = next(iter(self._arriving))
            del self._arriving[oldest]
            oldest.expire()
        self._arriving[deadline] = None
        try:
            return await read_body(request, most, deflate=deflate)
        finally:
            self._arriving.pop(deadline, None)


async def read_body(request: HttpRequest, limit_bytes: int, *, deflate: bool = False) -> bytes:
    """Read the whole body; one in gzip is decompressed, and with ``deflate`` one in that.

    Raises:
        BodyTooLarge: announced, real or decompressed size above ``limit_bytes``.
        MalformedBody: the body begins as gzip (or deflate) and is not.
        ClientDisconnected: the caller left before the end.
    """
    if not request.body.complete:
        announced = request.headers(b"content-length")
        if announced and _exceeds(announced[0], limit_bytes):
            raise BodyTooLarge(limit_bytes)
    while len(request.body.data) <= limit_bytes and not request.body.complete:
        await request.body.more()
    return _whole_body(request, limit_bytes, deflate=deflate)


def _whole_body(request: HttpRequest, limit_bytes: int, *, deflate: bool) -> bytes:
    if len(request.body.data) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    body = bytes(request.body.data)
    if is_gzip(body):
        return gunzip(body, limit_bytes)
    if deflate and is_zlib(body) and "deflate" in map(str.lower, request.headers(b"content-encoding")):
        return decompress(body, Coding.DEFLATE, limit_bytes)
    return body


def _exceeds(length: str, limit_bytes: int) -> bool:
    """Whether an announced length is one and too large; the parser has checked that it is a number."""
    digits = length.lstrip("0") or "0"
    return len(digits) > len(str(limit_bytes)) or int(digits) > limit_bytes


def is_gzip(body: bytes) -> bool:
    """Tell whether a body begins as gzip does; no JSON text can.

    ``content-encoding`` is not asked: ``@cloudflare/ai`` 1.1 sends ``application/json`` in it, and what
    forwards a Worker's request may decompress the body and leave the header.
    """
    return body.startswith(b"\x1f\x8b")


def is_zlib(body: bytes) -> bool:
    """Tell whether a body begins as the zlib format does (RFC 1950, section 2.2); no JSON object can.

    Two bytes say less than those of gzip do, so ``content-encoding`` has to announce it as well.
    """
    return len(body) > 1 and body[0] & 0x8F == 0x08 and int.from_bytes(body[:2], "big") % 31 == 0


def gunzip(body: bytes, limit_bytes: int) -> bytes:
    """Decompress one gzip member; see `decompress`."""
    return decompress(body, Coding.GZIP, limit_bytes)
