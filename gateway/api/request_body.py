"""Reading a bounded request body, compressed or not."""

from __future__ import annotations

import zlib

from gateway.access.admission import Admission
from gateway.domain.errors import BodyTooLarge, MalformedBody
from gateway.pipeline.deadline import RequestDeadline
from gateway.server.message import HttpRequest

_GZIP = 16 + zlib.MAX_WBITS
"""The gzip format alone, with zlib's largest window."""


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

    async def read(self, request: HttpRequest, deadline: RequestDeadline) -> bytes:
        """Read the whole body, unless there is no place in flight for what it asks.

        Raises:
            Overloaded: there is none; the body is not read.
            DeadlineExceeded: too many others came after it.
            BodyTooLarge, MalformedBody, ClientDisconnected: see `read_body`.
        """
        self._admission.check()
        if request.body.complete:
            return _whole_body(request, self._limit_bytes)
        if len(self._arriving) >= self._limit:
            oldest = next(iter(self._arriving))
            del self._arriving[oldest]
            oldest.expire()
        self._arriving[deadline] = None
        try:
            return await read_body(request, self._limit_bytes)
        finally:
            self._arriving.pop(deadline, None)


async def read_body(request: HttpRequest, limit_bytes: int) -> bytes:
    """Read the whole body; one in gzip is decompressed.

    Raises:
        BodyTooLarge: announced, real or decompressed size above ``limit_bytes``.
        MalformedBody: the body begins as gzip and is not.
        ClientDisconnected: the caller left before the end.
    """
    if not request.body.complete:
        announced = request.headers(b"content-length")
        if announced and _exceeds(announced[0], limit_bytes):
            raise BodyTooLarge(limit_bytes)
    while len(request.body.data) <= limit_bytes and not request.body.complete:
        await request.body.more()
    return _whole_body(request, limit_bytes)


def _whole_body(request: HttpRequest, limit_bytes: int) -> bytes:
    if len(request.body.data) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    body = bytes(request.body.data)
    return gunzip(body, limit_bytes) if is_gzip(body) else body


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


def gunzip(body: bytes, limit_bytes: int) -> bytes:
    """Decompress one gzip member, never into more than ``limit_bytes`` + 1 bytes of memory.

    Raises:
        BodyTooLarge: the content is longer than ``limit_bytes``.
        MalformedBody: not gzip, cut off, damaged, or followed by something else. A second member counts
            as that: a megabyte of tiny members would take minutes.
    """
    decompressor = zlib.decompressobj(_GZIP)
    try:
        content = decompressor.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise MalformedBody("the body is not valid gzip") from None
    if len(content) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    if not decompressor.eof or decompressor.unused_data:
        raise MalformedBody("the body is not valid gzip")
    return content
