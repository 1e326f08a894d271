"""Random pipelines of requests, valid and broken, and random segmentations of them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

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
"""Not allowed in trailers (RFC 9110, section 6.5.1); they have no effect there."""
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
    """Return one to four valid requests."""
    count = rng.randint(1, 4)
    return b"".join(
        rng.choice(between) + message(rng, trailers, last=number == count - 1 and rng.random() < 0.3)
        for number in range(count)
    )


def broken(rng: random.Random) -> bytes:
    """Return a pipeline after one to three random mutations, which may leave it valid."""
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
