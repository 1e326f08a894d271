"""Lengths that lie, chunks, pipelines, halves, and slow senders."""

from __future__ import annotations

from tests.contract.hostile.case import (
    BAD_HEADERS,
    BEARER,
    FINE,
    GOOD_BODY,
    NO_CREDENTIALS,
    NO_ROUTE,
    NOT_JSON,
    NOTHING,
    TIMEOUT,
    TOO_LARGE,
    UNKNOWN_CODING,
    Expected,
    Hostile,
    get,
    post,
    request,
)

DEADLINE_S = 1
"""The settings under which the corpus runs: for a whole request, and for a head."""

GOOD = request()
CHUNKED = b"Transfer-Encoding: chunked"
GARBLED = b"\x00garbage\r\n\r\n"
_CUT = GOOD.index(b"\r\n\r\n") + 4

TRAILERS = b"a:b\r\n" * 200_000
"""A megabyte; each line is an object or two to whoever keeps them."""

LENGTHS: dict[str, tuple[bytes, Expected]] = {
    "negative": (b"Content-Length: -1", BAD_HEADERS),
    "plus": (b"Content-Length: +15", BAD_HEADERS),
    "hex": (b"Content-Length: 0xf", BAD_HEADERS),
    "word": (b"Content-Length: fifteen", BAD_HEADERS),
    "empty": (b"Content-Length:", BAD_HEADERS),
    "decimal": (b"Content-Length: 15.0", BAD_HEADERS),
    "list": (b"Content-Length: 15, 15", BAD_HEADERS),
    "space inside": (b"Content-Length: 1 5", BAD_HEADERS),
    "twice": (b"Content-Length: 15\r\nContent-Length: 15", BAD_HEADERS),
    "twice, different": (b"Content-Length: 15\r\nContent-Length: 16", BAD_HEADERS),
    "above 64 bits": (b"Content-Length: 99999999999999999999", BAD_HEADERS),
    "and chunked": (b"Content-Length: 15\r\nTransfer-Encoding: chunked", BAD_HEADERS),
    "after chunked": (b"Transfer-Encoding: chunked\r\nContent-Length: 15", BAD_HEADERS),
    "zeros before": (b"Content-Length: 00000000000015", FINE),
    "encoding of gzip": (b"Transfer-Encoding: gzip", BAD_HEADERS),
    "encoding of nothing": (b"Transfer-Encoding:", BAD_HEADERS),
    "encoding of gzip, then chunks": (b"Transfer-Encoding: gzip, chunked", UNKNOWN_CODING),
    "encoding of x, then chunks": (b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked", UNKNOWN_CODING),
    "chunked twice": (b"Transfer-Encoding: chunked, chunked", BAD_HEADERS),
    "chunked, not last": (b"Transfer-Encoding: chunked, gzip", BAD_HEADERS),
    "chunked, quoted": (b'Transfer-Encoding: "chunked"', BAD_HEADERS),
    "chunked, spelt wrong": (b"Transfer-Encoding: xchunked", BAD_HEADERS),
    "chunked, name with a space": (b"Transfer-Encoding : chunked", BAD_HEADERS),
}

CHUNKS: dict[str, tuple[bytes, Expected]] = {
    "whole": (b"f\r\n" + GOOD_BODY + b"\r\n0\r\n\r\n", FINE),
    "one byte each": (b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD_BODY) + b"0\r\n\r\n", FINE),
    "zeros before": (b"00000f\r\n" + GOOD_BODY + b"\r\n000\r\n\r\n", FINE),
    "extension": (b"f;a=b\r\n" + GOOD_BODY + b"\r\n0;c\r\n\r\n", FINE),
    "trailer": (b"f\r\n" + GOOD_BODY + b"\r\n0\r\nX-A: b\r\n\r\n", FINE),
    "credentials in the trailer": (b"f\r\n" + GOOD_BODY + b"\r\n0\r\nAuthorization: x\r\n\r\n", FINE),
    "host in the trailer": (b"f\r\n" + GOOD_BODY + b"\r\n0\r\nHost: x\r\n\r\n", FINE),
    "nothing": (b"0\r\n\r\n", NOT_JSON),
    "cut JSON": (b"e\r\n" + GOOD_BODY[:-1] + b"\r\n0\r\n\r\n", NOT_JSON),
    "no size": (b"\r\n" + GOOD_BODY + b"\r\n0\r\n\r\n", BAD_HEADERS),
    "not hex": (b"zz\r\n" + GOOD_BODY + b"\r\n0\r\n\r\n", BAD_HEADERS),
    "prefix": (b"0xf\r\n" + GOOD_BODY + b"\r\n0\r\n\r\n", BAD_HEADERS),
    "negative": (b"-f\r\n" + GOOD_BODY + b"\r\n0\r\n\r\n", BAD_HEADERS),
    "space before": (b" f\r\n" + GOOD_BODY + b"\r\n0\r\n\r\n", BAD_HEADERS),
    "space after": (b"f \r\n" + GOOD_BODY + b"\r\n0\r\n\r\n", BAD_HEADERS),
    "bare LF": (b"f\n" + GOOD_BODY + b"\n0\n\n", BAD_HEADERS),
    "too short": (b"5\r\n" + GOOD_BODY + b"\r\n0\r\n\r\n", BAD_HEADERS),
    "above 64 bits": (b"ffffffffffffffffff\r\n" + GOOD_BODY, BAD_HEADERS),
    "trailer without a colon": (b"f\r\n" + GOOD_BODY + b"\r\n0\r\nwords\r\n\r\n", BAD_HEADERS),
    "above the limit": (b"100001\r\n" + b" " * 0x100001 + b"\r\n0\r\n\r\n", TOO_LARGE),
    "trailers without end": (b"f\r\n" + GOOD_BODY + b"\r\n0\r\n" + TRAILERS, BAD_HEADERS),
    "extension without end": (b"f;" + b"a" * 200_000 + b"\r\n" + GOOD_BODY + b"\r\n0\r\n\r\n", BAD_HEADERS),
}

GARBAGE: dict[str, bytes] = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "smtp": b"EHLO gateway\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "a response": b"HTTP/1.1 200 OK\r\n\r\n",
    "json alone": GOOD_BODY,
    "nul": bytes(100),
    "ff": b"\xff" * 100,
    "proxy protocol": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + GOOD,
    "a method alone": b"POST\r\n\r\n",
    "a method without end": b"A" * 100_000,
    "a path without end": b"GET /" + b"a" * 200_000,
    "a header without end": GOOD[: _CUT - 2] + b"X-A: " + b"a" * 200_000,
}

# What is sent, and all answers to it.
PIPELINES: dict[str, tuple[bytes, tuple[Expected, ...]]] = {
    "two good": (GOOD * 2, (FINE, FINE)),
    "fifty good": (GOOD * 50, (FINE,) * 50),
    "good, then no route": (GOOD + post("/nowhere"), (FINE, NO_ROUTE)),
    "no route, then good": (post("/nowhere") + GOOD, (NO_ROUTE, FINE)),
    "no credentials, then good": (request(bearer=None) + GOOD, (NO_CREDENTIALS, FINE)),
    "not JSON, then good": (request(b"{") + GOOD, (NOT_JSON, FINE)),
    "hidden in a GET": (request(GOOD, line=b"GET /livez HTTP/1.1"), (FINE,)),
    "a hundred health checks": (get("/livez") * 100, (FINE,) * 100),
}
# The same, and the gateway ends the connection behind them.
LAST_WORDS: dict[str, tuple[bytes, tuple[Expected, ...]]] = {
    "a close in front": (request(GOOD_BODY, b"Connection: close") + GOOD, (FINE,)),
    "garbage, then good": (GARBLED + GOOD, (BAD_HEADERS,)),
    "good, then garbage": (GOOD + GARBLED, (FINE, BAD_HEADERS)),
    "three good, then garbage, then good": (GOOD * 3 + GARBLED + GOOD, (FINE, FINE, FINE, BAD_HEADERS)),
    "good, then a bad chunk": (GOOD + request(b"zz\r\n", length=CHUNKED), (FINE, BAD_HEADERS)),
    "hidden behind a short length": (
        request(length=b"Content-Length: 0") + GOOD,
        (NOT_JSON, BAD_HEADERS),
    ),
}

_TRAILER = b"f\r\n" + GOOD_BODY + b"\r\n0\r\n" + BEARER + b"\r\n\r\n"
_OFFER = request(GOOD_BODY, b"Connection: Upgrade", b"Upgrade: h2c")
_NAME = _OFFER.index(b"Upgrade: h2c")
_SOCKET = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")


def _bytes_of(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[place : place + 1] for place in range(len(data)))


SLOW: tuple[Hostile, ...] = (
    Hostile("slow: a byte at a time", _bytes_of(GOOD), FINE, pause_s=0.001),
    Hostile("slow: head and body apart", (GOOD[:_CUT], GOOD[_CUT:]), FINE),
    Hostile("slow: split in the line break", (GOOD[: _CUT - 3], GOOD[_CUT - 3 :]), FINE),
    Hostile("slow: split before the last byte", (GOOD[:-1], GOOD[-1:]), FINE),
    Hostile("slow: a bad byte at the end", (GOOD[:-1], b"]"), NOT_JSON),
    Hostile("slow: line breaks first", (b"\r\n", b"\r\n", GOOD), FINE),
    Hostile("upgrade: offered", (_OFFER,), FINE),
    *(
        Hostile(
            f"upgrade: split after {count} letters", (_OFFER[: _NAME + count], _OFFER[_NAME + count :]), FINE
        )
        for count in range(-2, 9)
    ),
    Hostile("upgrade: a byte at a time", _bytes_of(_OFFER), FINE, pause_s=0.001),
    Hostile("upgrade: to a websocket", (request(GOOD_BODY, *_SOCKET),), FINE),
    Hostile("upgrade: websocket on a page", (get("/", *_SOCKET),), FINE),
    Hostile("expect: continue", (request(GOOD_BODY, b"Expect: 100-continue"),), FINE),
    Hostile(
        "expect: continue, without credentials",
        (request(GOOD_BODY, b"Expect: 100-continue", bearer=None)[: -len(GOOD_BODY)],),
        NO_CREDENTIALS,
    ),
    Hostile(
        "expect: continue, too large",
        (request(b"", b"Expect: 100-continue", length=b"Content-Length: 2000000"),),
        TOO_LARGE,
    ),
)

HALVES: tuple[Hostile, ...] = (
    Hostile("half: a head", (GOOD[: _CUT - 10],), TIMEOUT, after_s=DEADLINE_S),
    Hostile("half: a method", (b"PO",), TIMEOUT, after_s=DEADLINE_S),
    Hostile("half: no empty line", (GOOD[: _CUT - 2],), TIMEOUT, after_s=DEADLINE_S),
    Hostile("half: a body", (GOOD[:-5],), TIMEOUT, after_s=DEADLINE_S),
    Hostile("half: no body", (GOOD[:_CUT],), TIMEOUT, after_s=DEADLINE_S),
    Hostile("half: a longer length", (request(length=b"Content-Length: 16"),), TIMEOUT, after_s=DEADLINE_S),
    Hostile(
        "half: a chunk",
        (request(b"f\r\n" + GOOD_BODY[:5], length=CHUNKED),),
        TIMEOUT,
        after_s=DEADLINE_S,
    ),
    Hostile(
        "half: no last chunk",
        (request(b"f\r\n" + GOOD_BODY + b"\r\n", length=CHUNKED),),
        TIMEOUT,
        after_s=DEADLINE_S,
    ),
    Hostile("half: without credentials", (request(bearer=None)[:-5],), NO_CREDENTIALS, unfinished=True),
    Hostile("half: to nowhere", (post("/nowhere")[:-5],), NO_ROUTE, unfinished=True),
    *(
        Hostile(
            f"half: of {length.decode()} bytes",
            (request(length=b"Content-Length: " + length),),
            TOO_LARGE,
            unfinished=True,
        )
        for length in (b"1048577", b"1073741824", b"999999999999999999")
    ),
    *(
        Hostile(f"left: after {name}", (sent,), NOTHING, leaves=True)
        for name, sent in {
            "nothing": b"",
            "a letter": b"P",
            "a head": GOOD[:_CUT],
            "half a body": GOOD[:-5],
            "everything": GOOD,
            "a megabyte": request(b"x" * 1_000_000),
            "fifty requests": GOOD * 50,
            "half a chunk": request(b"f\r\n{", length=CHUNKED),
        }.items()
    ),
)

TOO_SHORT = {"none": b"", "zero": b"Content-Length: 0", "too short": b"Content-Length: 14"}
"""What is left of the body is no request."""

CASES = [
    *(
        Hostile(f"length: {name}", (request(length=line),), NOT_JSON, then=(BAD_HEADERS,), ends=True)
        for name, line in TOO_SHORT.items()
    ),
    *(Hostile(f"length: {name}", (request(length=line),), code) for name, (line, code) in LENGTHS.items()),
    *(
        Hostile(f"chunks: {name}", (request(body, length=CHUNKED),), code)
        for name, (body, code) in CHUNKS.items()
    ),
    *(Hostile(f"garbage: {name}", (sent,), BAD_HEADERS) for name, sent in GARBAGE.items()),
    *(
        Hostile(f"pipeline: {name}", (sent,), answers[0], then=answers[1:], ends=ends)
        for group, ends in ((PIPELINES, False), (LAST_WORDS, True))
        for name, (sent, answers) in group.items()
    ),
    Hostile(
        "chunks: credentials in the trailer alone",
        (request(_TRAILER, bearer=None, length=CHUNKED),),
        NO_CREDENTIALS,
    ),
    *SLOW,
    *HALVES,
]
