"""Request targets and responses as bytes on the wire (RFC 9112)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus

import httptools

from gateway.http.message import Header, Response

# As bytes that are there already: two more headers to spell out would take a hundredth of a request's time.
_UNLESS_A_FILE = b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
"""Of every answer but files for a browser, which have their own: what was answered to one caller is kept by
no cache in between (one that keeps what carries `Authorization` breaks the rules; of `X-Auth-Key` it knows
nothing), and is taken for nothing but what its type says."""
_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


def target_of(url: bytes) -> tuple[str, str]:
    """Split a request target into path and query; in the absolute form the host is left out.

    Raises:
        httptools.HttpParserInvalidURLError: it is neither a path nor a URL.
        ValueError: it is a URL without a path.
    """
    if url.startswith(b"/"):
        path, _, query = url.partition(b"#")[0].partition(b"?")
        return path.decode("ascii"), query.decode("ascii")
    parsed = httptools.parse_url(url)
    if parsed.path is None:
        raise ValueError("target")
    return parsed.path.decode("ascii"), (parsed.query or b"").decode("ascii")


def rendered(response: Response, headers: Sequence[Header], *, close: bool, with_body: bool) -> bytes:
    """Return a whole response as bytes, with the date and what ends the connection."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join(
        (
            _STATUS_LINES[HTTPStatus(response.status)],
            _date(int(time.time())),
            *lines,
            b"" if response.is_file else _UNLESS_A_FILE,
            b"connection: close\r\n\r\n" if close else b"\r\n",
            response.body if with_body else b"",
        )
    )


_dates: dict[int, bytes] = {}


def _date(second: int) -> bytes:
    """The Date header; spelling it out takes longer than the rest of the head."""
    line = _dates.get(second)
    if line is None:
        _dates.clear()
        line = _dates[second] = b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
    return line
