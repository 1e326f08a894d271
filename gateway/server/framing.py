"""Where a request ends: the framing of heads and bodies (RFC 9112, sections 2.2, 6 and 7.1)."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.server.errors import InvalidRequest, UnsupportedTransferCoding
from gateway.server.message import Header
from gateway.server.wire import is_host

MAX_HEAD_BYTES = 64 * 1024
"""Limit of the request line and the header lines together, and of chunk extensions and trailers."""

FRAMING_HEADERS = frozenset((b"host", b"content-length", b"transfer-encoding"))
EMPTY_LINE = b"\r\n\r\n"

_HOST_COUNTS = {"1.0": (0, 1), "1.1": (1,)}
"""Supported versions, each with the allowed numbers of Host headers."""
_CHUNK_CHECK_BYTES = 16 * 1024
"""A chunked body is checked for content each time that so many bytes of it have arrived."""


def check_version_and_host(version: str, hosts: Sequence[bytes]) -> None:
    """Check the version and the values of Host (RFC 9112, section 3.2).

    Args:
        version: "1.1", for example.
        hosts: the values of all Host headers.

    Raises:
        InvalidRequest: the version is neither 1.0 nor 1.1, or Host is invalid, repeated or missing.
    """
    if len(hosts) not in _HOST_COUNTS.get(version, ()) or not all(map(is_host, hosts)):
        raise InvalidRequest


def body_length(framing: Sequence[Header], version: str) -> int | None:
    """Return the length of a body in bytes, or None if it is chunked (RFC 9112, section 6.3).

    Args:
        framing: at least the Content-Length and Transfer-Encoding headers, as llhttp accepted them: a
            Content-Length is one decimal number, and it occurs once.
        version: "1.1", for example.

    Raises:
        InvalidRequest: two recipients could disagree about the length.
        UnsupportedTransferCoding: the body is in a coding other than chunked (section 6.1).
    """
    length: int | None = None
    encodings: list[bytes] = []
    for name, value in framing:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            encodings.append(value)
    if not encodings:
        return length or 0
    if length is not None or version == "1.0":
        raise InvalidRequest
    _check_codings([coding.strip(b" \t") for coding in b",".join(encodings).lower().split(b",")])
    return None


def _check_codings(codings: list[bytes]) -> None:
    """Accept ``chunked`` alone; it has to be the last coding, and may be applied only once."""
    if b"" in codings or codings.count(b"chunked") != 1 or codings[-1] != b"chunked":
        raise InvalidRequest
    if len(codings) > 1:
        raise UnsupportedTransferCoding


class EmptyLineFinder:
    """Finds the empty line that ends a head or a chunked body, even if it arrives in several pieces."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""
        """The last bytes of the pieces so far, at most three."""

    def reset(self) -> None:
        """Forget the previous pieces."""
        self._tail = b""

    def end(self, data: bytes, at: int) -> int:
        """Return the offset behind the next empty line in ``data[at:]``, or the end of ``data``."""
        if self._tail:
            found = (self._tail + data[at : at + 3]).find(EMPTY_LINE)
            if found >= 0:
                return at + found + 4 - len(self._tail)
        found = data.find(EMPTY_LINE, at)
        return len(data) if found < 0 else found + 4

    def advance(self, data: bytes, at: int, end: int) -> None:
        """Note that ``data[at:end]`` has been parsed."""
        self._tail = data[end - 3 : end] if end - at >= 3 else (self._tail + data[at:end])[-3:]


class ChunkOverhead:
    """Bounds the chunk extensions and trailers between two bytes of content.

    It checks at the same offsets of the body however the network segments it, so that the same bytes always
    give the same result.
    """

    __slots__ = ("_bytes", "_has_content", "until_check")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new body."""
        self._bytes = 0
        self._has_content = False
        self.until_check = _CHUNK_CHECK_BYTES
        """No more bytes than this may be parsed before the next call of `parsed`."""

    def content(self) -> None:
        """Note that a byte of content has been parsed."""
        self._has_content = True

    def parsed(self, count: int) -> None:
        """Note that ``count`` bytes of the body have been parsed.

        Raises:
            InvalidRequest: there were more than `MAX_HEAD_BYTES` of extensions or trailers.
        """
        self.until_check -= count
        if self.until_check:
            return
        self._bytes = 0 if self._has_content else self._bytes + _CHUNK_CHECK_BYTES
        self._has_content = False
        self.until_check = _CHUNK_CHECK_BYTES
        if self._bytes > MAX_HEAD_BYTES:
            raise InvalidRequest
