"""A connection without a network, and pipelines of requests, good and broken, to send over it."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.errors import (
    ClientDisconnected,
    MalformedRequest,
    RequestError,
    RequestTimeout,
    ServerBusy,
    UnsupportedTransferCoding,
)
from gateway.server.http_connection import HttpConnection
from gateway.server.message import Header, HttpRequest, Response
from gateway.server.timeouts import Timeouts

_TURNS = 4
"""Of the event loop: what a piece sets off is over."""


_STATUS: dict[type[RequestError], int] = {
    MalformedRequest: 400,
    RequestTimeout: 408,
    ServerBusy: 429,
    ClientDisconnected: 499,
    UnsupportedTransferCoding: 501,
}


class Wire:
    """A transport that keeps what is written, and has a caller who reads at once."""

    def __init__(self) -> None:
        self.written = b""
        self.paused = False
        self.half_closed = False
        self.closed = False

    def get_extra_info(self, name: str, default: object = None) -> Any:
        return self if name == "socket" else default

    def getsockopt(self, *_: int) -> int:
        return 0

    def write(self, data: bytes) -> None:
        assert not self.half_closed
        assert not self.closed
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0


@dataclass
class Recorder:
    """An application that keeps what it was asked, whole bodies included."""

    seen: list[tuple[object, ...]] = field(default_factory=list)

    async def __call__(self, request: HttpRequest) -> tuple[Response, Sequence[Header]]:
        asked = (request.method, request.raw_path, request.query_string, tuple(request.all_headers))
        if request.raw_path == "/early":
            self.seen.append((*asked, None))
            return Response(401, b"early"), []
        try:
            while not request.body.complete:
                await request.body.more()
        except RequestError as error:
            self.seen.append((*asked, type(error).__name__))
            return Response(_STATUS[type(error)], b"broken"), []
        self.seen.append((*asked, bytes(request.body.data)))
        return Response(200, b"%d" % len(request.body.data)), []

    def refuse(self, error: RequestError) -> tuple[Response, Sequence[Header]]:
        return Response(_STATUS[type(error)], type(error).__name__.encode()), []


@dataclass(frozen=True)
class Outcome:
    """What came of a connection."""

    seen: list[tuple[object, ...]]
    answers: list[bytes]
    """Status and body of each, without those before the final one."""
    closed: bool
    """Before the caller had ended his side."""


async def outcome(
    pieces: Sequence[bytes], *, patient: bool = True, limiter: ConnectionLimiter | None = None
) -> Outcome:
    """Send ``pieces``, wait for the answers (between the pieces as well, if ``patient``), and hang up."""
    app, wire = Recorder(), Wire()
    connection = HttpConnection(app, limiter or ConnectionLimiter(1), Timeouts(75, 10))
    connection.connection_made(cast(asyncio.Transport, wire))

    async def settle() -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        while wire.paused and not wire.closed:
            await asyncio.sleep(0)

    for piece in pieces:
        if patient or wire.paused:
            await settle()
        if wire.closed:
            break
        connection.data_received(piece)
    await settle()
    closed = wire.closed or wire.half_closed
    if not closed and not connection.eof_received():
        wire.close()
    connection.connection_lost(None)
    if connection.task is not None:
        await connection.task
    return Outcome(app.seen, answers(wire.written), closed)


def answers(written: bytes) -> list[bytes]:
    found = []
    for answer in re.split(rb"(?=HTTP/1\.1 \d{3} )", written)[1:]:
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 1"):
            found.append(head[9:12] + b" " + body)
    return found


LOST = ClientDisconnected.__name__

_TARGETS = (b"/", b"/a?b=c", b"/early", b"http://x/absolute", b"http://x", b"/%41//..", b"*")
_CONTENTS = (
    b"",
    b"x",
    b'{"text": "good"}',
    b"Upgrade: worth it",
    b"\r\nupgrade: h2c\r\n\r\n",
    b"0\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r",
    b"\n\r\n",
    bytes(range(256)),
    b"long " * 300,
)
_EXTRA = (
    b"X-A: b",
    b"X-Empty:",
    b"X-Spaces:  \t a  ",
    b"Accept: */*",
    b"Connection: keep-alive",
    b"Upgrade: h2c",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM",
    b"connection: upgrade\r\nUPGRADE: websocket",
    b"TE: trailers",
    b"Expect: 100-continue",
)
_LAST = (b"Connection: close", b"Connection: close, x")
TRAILERS = (
    b"X-T: u",
    b"Connection: close",
    b"Connection: upgrade\r\nUpgrade: h2c",
    b"Host: other",
    b"Authorization: Bearer x",
    b"Empty:",
)
FRAMING_TRAILERS = (b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", b"Content-Length: 7")
"""Which nobody may send, and which mean nothing."""
_WRONG = (
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Host: second",
    b"no colon",
    b"Name : value",
    b" folded",
    b"X-Nul: \0",
    b"Expect: 100-continue",
)


def chunked(rng: random.Random, content: bytes, trailers: Sequence[bytes] = ()) -> bytes:
    """Return ``content`` in chunks of random sizes, some with extensions."""
    parts = []
    while content:
        size = rng.randint(1, len(content))
        extension = rng.choice((b"", b"", b";a", b';a="b"', b";upgrade"))
        parts.append(b"%x%b\r\n%b\r\n" % (size, extension, content[:size]))
        content = content[size:]
    return b"".join((*parts, b"0\r\n", *(line + b"\r\n" for line in trailers), b"\r\n"))


def message(rng: random.Random, trailers: Sequence[bytes], *, last: bool = False) -> bytes:
    """Return a valid request."""
    method = rng.choice((b"GET", b"POST", b"POST", b"PUT", b"HEAD"))
    lines = [
        method + b" " + rng.choice(_TARGETS) + b" HTTP/1.1",
        b"Host: " + rng.choice((b"x", b"[::1]:80", b"")),
    ]
    extra = rng.sample(_EXTRA, rng.choice((0, 0, 1, 2)))
    lines += [
        line for line in extra if sum(b"pgrade" in other for other in extra) < 2 or b"pgrade" not in line
    ]
    if last:
        lines.append(rng.choice(_LAST))
    content = rng.choice(_CONTENTS)
    kind = rng.randrange(4)
    if kind == 0:
        body = b""
    elif kind == 1:
        body = content
        lines.append(b"Content-Length: %d" % len(content))
    else:
        body = chunked(rng, content, rng.sample(trailers, rng.choice((0, 0, 1, 2))))
        lines.append(rng.choice((b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked")))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def pipeline(
    rng: random.Random,
    between: Sequence[bytes] = (b"", b"", b"", b"\r\n"),
    trailers: Sequence[bytes] = TRAILERS + FRAMING_TRAILERS,
) -> bytes:
    """Return some valid requests, one behind the other."""
    count = rng.randint(1, 4)
    return b"".join(
        rng.choice(between) + message(rng, trailers, last=number == count - 1 and rng.random() < 0.3)
        for number in range(count)
    )


def broken(rng: random.Random) -> bytes:
    """Return a pipeline with something wrong somewhere; now and then it is valid all the same."""
    sent = pipeline(rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(sent) + 1)
        kind = rng.randrange(7)
        if kind == 0:
            sent = sent[:at] + sent[at + rng.randint(1, 3) :]
        elif kind == 1:
            sent = sent[:at] + bytes((rng.choice(b"\r\n\0 :;0f\xff\t,"),)) + sent[at:]
        elif kind == 2:
            sent = sent[:at]
        elif kind == 3:
            at = rng.choice([0, *(found.end() for found in re.finditer(rb"\r\n", sent))])
            sent = sent[:at] + rng.choice(_WRONG) + b"\r\n" + sent[at:]
        elif kind == 4:
            sent = sent.replace(b"\r\n", b"\n", 1) if rng.random() < 0.5 else sent[:at] + b"\r\n" + sent[at:]
        elif kind == 5:
            sent = sent.replace(b"HTTP/1.1", rng.choice((b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ")), 1)
        else:
            sent = re.sub(
                rb"\r\n[0-9a-f]+",
                rng.choice((b"\r\n", b"\r\n-1", b"\r\n0x1", b"\r\n1 ", b"\r\nfff")),
                sent,
                count=1,
            )
    return sent


def cut(rng: random.Random, sent: bytes) -> list[bytes]:
    """Return ``sent`` in pieces: a few, a lot, or of one byte each."""
    most = min(len(sent) - 1, rng.choice((1, 2, 5, 20, 10**9 if len(sent) < 500 else 50)))
    if most < 1:
        return [sent]
    places = sorted(rng.sample(range(1, len(sent)), rng.randint(1, most) if most < 100 else most))
    return [sent[start:end] for start, end in zip([0, *places], [*places, len(sent)], strict=True)]
