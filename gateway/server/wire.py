"""Request targets, Host values and responses in the format of RFC 9112."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from ipaddress import IPv6Address

import httptools

from gateway.server.message import Header, Response

# As prepared bytes: to format two more headers would take a hundredth of the time of a request.
_UNLESS_CACHEABLE = b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
"""In every response except a is_static file, which has headers of its own. Shared caches store no response
to a request with `Authorization` (RFC 9111, section 3.5), but do not know `X-Auth-Key`. Browsers must not
guess another content type."""
_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


def target_of(url: bytes) -> tuple[str, str]:
    """Split a request target (section 3.2) into path and query; the host of an absolute form is dropped.

    Raises:
        httptools.HttpParserInvalidURLError: it is neither a path nor a URL.
    """
    if url.startswith(b"/"):
        path, _, query = url.partition(b"#")[0].partition(b"?")
        return path.decode("ascii"), query.decode("ascii")
    parsed = httptools.parse_url(url)
    return (parsed.path or b"/").decode("ascii"), (parsed.query or b"").decode("ascii")


# uri-host [ ":" port ] (RFC 9110, section 7.2; RFC 3986, section 3.2.2), without userinfo.
_HOST = re.compile(
    rb"(?:(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*|\[(?:(?P<six>[0-9A-Fa-f:.]+)|[Vv][0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+)\])"
    rb"(?::[0-9]*)?"
)


def is_host(value: bytes) -> bool:
    """Return whether ``value`` is valid for Host (RFC 9112, section 3.2); it may be empty."""
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
    """Return a response as bytes, with Date, and `Connection: close` if ``close``."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join(
        (
            _STATUS_LINES[HTTPStatus(response.status)],
            _date(int(time.time())),
            *lines,
            b"" if response.is_static else _UNLESS_CACHEABLE,
            b"connection: close\r\n\r\n" if close else b"\r\n",
            response.body if with_body else b"",
        )
    )


_dates: dict[int, bytes] = {}


def _date(second: int) -> bytes:
    """Return the Date header (RFC 9110, section 6.6.1); formatting it would take most of the time."""
    line = _dates.get(second)
    if line is None:
        _dates.clear()
        line = _dates[second] = b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
    return line
