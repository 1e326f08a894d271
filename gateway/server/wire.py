"""Request targets, hosts and responses as bytes on the wire (RFC 9112)."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from ipaddress import IPv6Address

import httptools

from gateway.server.message import Header, Response

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
    """
    if url.startswith(b"/"):
        path, _, query = url.partition(b"#")[0].partition(b"?")
        return path.decode("ascii"), query.decode("ascii")
    parsed = httptools.parse_url(url)
    return (parsed.path or b"/").decode("ascii"), (parsed.query or b"").decode("ascii")


# uri-host [ ":" port ] of RFC 3986, section 3.2.2; there is no user in it (RFC 9110, section 7.2).
_HOST = re.compile(
    rb"(?:(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*|\[(?:(?P<six>[0-9A-Fa-f:.]+)|[Vv][0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+)\])"
    rb"(?::[0-9]*)?"
)


def is_host(value: bytes) -> bool:
    """Tell whether that is what a Host header may say; it may be empty."""
    found = _HOST.fullmatch(value)
    if found is None:
        return False
    if found["six"] is not None:
        try:
            IPv6Address(found["six"].decode("ascii"))
        except ValueError:
            return False
    return True


def rendered(response: Response, headers: Sequence[Header], *, close: bool, with_body: bool) -> bytes:
    """Return a whole response as bytes, with the date and what ends the connection."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join(
        (
            _STATUS_LINES[HTTPStatus(response.status)],
            _date(int(time.time())),
            *lines,
            b"" if response.cacheable else _UNLESS_A_FILE,
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
