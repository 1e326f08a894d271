"""One hostile request, the refusals of the contract, and how tables become bytes."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.harness import RUN, TOKEN

Expected = tuple[int, int]
"""HTTP status and code of the API; the code of an answer that is no error is 0."""

FINE: Expected = (200, 0)
NOT_JSON: Expected = (400, 3003)
TOO_LARGE: Expected = (413, 3006)
TIMEOUT: Expected = (408, 3007)
BAD_INPUT: Expected = (400, 5006)
NO_MODEL: Expected = (400, 5007)
BAD_HEADERS: Expected = (400, 6003)
UNKNOWN_CODING: Expected = (501, 6003)
NO_ROUTE: Expected = (400, 7000)
WRONG_METHOD: Expected = (405, 7001)
NO_CREDENTIALS: Expected = (400, 9106)
UNKNOWN_TOKEN: Expected = (401, 10000)
OTHER_ACCOUNT: Expected = (403, 10000)
NOTHING: Expected = (0, 0)
"""The caller left before an answer was due."""

BEARER = f"Authorization: Bearer {TOKEN}".encode()
GOOD_BODY = b'{"text":"good"}'


@dataclass(frozen=True)
class Hostile:
    """One exchange on a fresh connection."""

    name: str
    sent: tuple[bytes, ...]
    """Pieces; the sender pauses between them."""
    expected: Expected
    """The first answer."""
    then: tuple[Expected, ...] | None = None
    """All answers behind the first, for a pipeline; None where the good request is sent behind it."""
    ends: bool = False
    """For a pipeline: the gateway closes the connection behind the answers."""
    pause_s: float = 0.01
    after_s: float = 0.0
    """Time that the contract itself lets pass before the answer: a deadline."""
    unfinished: bool = False
    """The answer comes before the end of the body: what follows on the connection is still body."""
    leaves: bool = False
    """The sender closes the connection after the last piece, without waiting."""


def request(
    body: bytes = GOOD_BODY,
    *headers: bytes,
    line: bytes = f"POST {RUN} HTTP/1.1".encode(),
    host: bytes | None = b"Host: gateway",
    bearer: bytes | None = BEARER,
    length: bytes | None = None,
) -> bytes:
    """Return a request that is good except for what the caller changes.

    Args:
        body: the body; its length is announced.
        *headers: more header lines.
        line: the request line.
        host: header line, None for none.
        bearer: header line, None for none.
        length: the header line to send instead of the true Content-Length, empty for none.
    """
    announced = b"Content-Length: %d" % len(body) if length is None else length
    lines = [line, host, bearer, announced, *headers]
    return b"\r\n".join(part for part in lines if part) + b"\r\n\r\n" + body


def get(path: str, *headers: bytes, method: str = "GET") -> bytes:
    """Return a request without a body."""
    return request(b"", *headers, line=f"{method} {path} HTTP/1.1".encode("latin-1"), length=b"")


def post(path: str, body: bytes = GOOD_BODY) -> bytes:
    """Return a good request to another path."""
    return request(body, line=f"POST {path} HTTP/1.1".encode("latin-1"))
