"""From bytes to requests (RFC 9112), one at a time.

httptools (llhttp) parses. What surrounds it here makes a request's end known, which httptools does not
tell: a message without a length ends behind an empty line, so the parser gets no byte behind the next one
before it has said whether that was the end. So nothing is parsed ahead, no byte of content is changed, and
how the network has cut the bytes makes no difference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import httptools

from gateway.server.errors import MalformedRequest, RequestError, UnsupportedTransferCoding
from gateway.server.message import Address, Header, HttpRequest
from gateway.server.wire import is_host, target_of

MAX_HEAD_BYTES = 64 * 1024
"""Longest request line and headers, together."""
MAX_HEADER_LINES = 128
"""Each line costs some hundred bytes of memory, however short it is."""

_EMPTY_LINE = b"\r\n\r\n"
_LINE_ENDS = re.compile(rb"[\r\n]*")
_FEW_BYTES = 2048
_CHECK_BYTES = 16 * 1024
"""So often, in bytes of a chunked body, it is looked how far apart its content is."""
_HOSTS = {"1.0": (0, 1), "1.1": (1,)}
"""Versions that are spoken, and how many Host headers each may have."""
_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding"))


class RequestParser:
    """Takes what comes on one connection.

    `request` is the one whose head was complete last; its body is filled in until it is complete. An error
    is final: nothing may be fed after it.
    """

    def __init__(self, client: Address | None = None, server: Address | None = None) -> None:
        self._client = client
        self._server = server
        self._http = self._fresh()
        self.request: HttpRequest | None = None
        self.in_head = False
        """Between the first byte of a request and the end of its head."""
        self.head_bytes = 0
        self.version = ""
        self._url = b""
        self._headers: list[Header] = []
        self._error: type[RequestError] = MalformedRequest
        self._between = True
        """No byte of the next request is there."""
        self._tail = b""
        """The last bytes of what was fed: an empty line may lie across two pieces."""
        self._hosts: list[bytes] = []
        self._left = 0
        """Bytes to come of a body of known length."""
        self._chunked = b""
        self._to_check = 0
        self._barren_bytes = 0
        """Chunk extensions and trailers since the last byte of content."""
        self._had_content = False
        self._upgrade = False
        self._muted = False

    def close(self) -> None:
        """Let go of what refers back to us or to the connection: only the collector would find that."""
        del self._http
        self.request = None

    def feed(self, data: bytes, at: int = 0) -> int:
        """Parse ``data`` from ``at`` on, to the end of a request at most; return the place behind it.

        Raises:
            MalformedRequest: it is no HTTP, too large, of another version than 1.0 and 1.1, names no valid
                host or several (section 3.2), or is framed in a way that others could understand otherwise.
            UnsupportedTransferCoding: the body is encoded (section 6.1).
        """
        size = len(data)
        if self._between:
            if data[at : at + 1] <= b"\r":
                found = _LINE_ENDS.match(data, at)
                at = found.end() if found else at
            if at < size:
                self._begin()
        while at < size and not self._between:
            if self.in_head:
                end = self._behind_empty_line(data, at)
                self.head_bytes += end - at
                if self.head_bytes > MAX_HEAD_BYTES:
                    raise MalformedRequest
                self._parse(data, at, end)
            elif self._left:
                end = min(size, at + self._left)
                self._left -= end - at
                self._parse(data, at, end)
                if not (self._left or self._between):
                    raise MalformedRequest  # llhttp counts otherwise
            else:
                end = min(self._behind_empty_line(data, at), at + self._to_check)
                self._parse(data, at, end)
                self._check_content(end - at)
            at = end
        return at

    def _begin(self) -> None:
        self._between = False
        self.in_head = True
        self.request = None
        self.head_bytes = 0
        self._url = b""
        self._headers = []
        self._tail = b""

    def _behind_empty_line(self, data: bytes, at: int) -> int:
        """Return how far may be parsed without missing the end of a head, or of a body in chunks."""
        if self._tail:  # it may lie across what was fed and what comes
            found = (self._tail + data[at : at + 3]).find(_EMPTY_LINE)
            if found >= 0:
                return at + found + 4 - len(self._tail)
        found = data.find(_EMPTY_LINE, at)
        return len(data) if found < 0 else found + 4

    def _parse(self, data: bytes, at: int, end: int) -> None:
        if end - at < len(data):
            # To copy a little takes less time than to make a view.
            piece = data[at:end] if end - at < _FEW_BYTES else memoryview(data)[at:end]
        else:
            piece = data
        try:
            self._http.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._ignore_upgrade()
        except httptools.HttpParserError:
            raise self._error from None
        if self.in_head or self._chunked:
            self._tail = data[end - 3 : end] if end - at >= 3 else (self._tail + data[at:end])[-3:]

    def _ignore_upgrade(self) -> None:
        """Go on behind the head of a request that offers another protocol (RFC 9110, section 7.8).

        The parser has left its body to whoever speaks that. So a new one is told of a body alone.
        """
        self._upgrade = False
        request = self.request
        if request is None or request.method == "CONNECT" or not (self._left or self._chunked):
            self.on_message_complete()
            return
        self._http = self._fresh()
        self._muted = True
        framing = self._chunked or b"content-length: %d" % self._left
        self._http.feed_data(b"POST / HTTP/1.1\r\nhost:\r\n" + framing + _EMPTY_LINE)
        self._muted = False
        if self._chunked:
            self._ignore_trailers(True)

    def _fresh(self) -> httptools.HttpRequestParser:
        http = httptools.HttpRequestParser(self)
        # It would swallow whatever follows `Connection: close`, in a trailer too. Who feeds it stops there.
        http.set_dangerous_leniencies(lenient_keep_alive=True)
        return http

    def _ignore_trailers(self, ignore: bool) -> None:
        """What they say of framing comes too late to mean anything; in heads it is taken strictly."""
        self._http.set_dangerous_leniencies(lenient_chunked_length=ignore, lenient_transfer_encoding=ignore)

    def _check_content(self, fed: int) -> None:
        """Look, at the same places however the bytes were cut, whether there is content among the chunks.

        Raises:
            MalformedRequest: their extensions, or trailers, are too long.
        """
        self._to_check -= fed
        if self._to_check == 0:
            self._to_check = _CHECK_BYTES
            self._barren_bytes = 0 if self._had_content else self._barren_bytes + _CHECK_BYTES
            self._had_content = False
            if self._barren_bytes > MAX_HEAD_BYTES:
                raise MalformedRequest

    # --- called by httptools ----------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are dropped: they could bring credentials (RFC 9110, section 6.5.1)."""
        if self.in_head:
            if len(self._headers) == MAX_HEADER_LINES:
                raise ValueError("headers")
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """End the head and make the request.

        Raises:
            ValueError: it is refused; the parser turns this into one of its own errors.
        """
        if self._muted:
            return
        headers = self._headers
        framing = [header for header in headers if header[0] in _FRAMING]
        version = self.version = self._http.get_http_version()
        hosts = [value for name, value in framing if name == b"host"]
        if len(hosts) not in _HOSTS.get(version, ()) or not (
            hosts == self._hosts or all(map(is_host, hosts))
        ):
            raise ValueError("version or host")
        self._hosts = hosts
        self._frame(framing)
        if version == "1.0":
            # It is not to be answered there (RFC 9110, section 10.1.1).
            headers = [header for header in headers if header[0] != b"expect"]
        method = self._http.get_method().decode("ascii")
        request = HttpRequest(
            method, *target_of(self._url), headers, client=self._client, server=self._server
        )
        # The head alone says it; the parser would listen to a trailer, too.
        request.keep_alive = version != "1.0" and method != "CONNECT" and self._http.should_keep_alive()
        self.request = request
        self.in_head = False
        self._upgrade = self._http.should_upgrade()

    def _frame(self, headers: Sequence[Header]) -> None:
        """Learn how long the body is; the parser has checked that a length is one number.

        Raises:
            ValueError: it cannot be known for sure, or is in a coding other than chunks.
        """
        self._left, self._chunked = 0, b""
        encodings = []
        has_length = False
        for name, value in headers:
            if name == b"content-length":
                self._left, has_length = int(value), True
            elif name == b"transfer-encoding":
                encodings.append(value)
        if not encodings:
            return
        codings = [coding.strip(b" \t") for coding in b",".join(encodings).lower().split(b",")]
        if has_length or self.version == "1.0" or codings.index(b"chunked") != len(codings) - 1:
            raise ValueError("framing")
        if len(codings) > 1:
            self._error = MalformedRequest if b"" in codings else UnsupportedTransferCoding
            raise ValueError("transfer coding")
        self._chunked = b"transfer-encoding: chunked"
        self._to_check, self._barren_bytes, self._had_content = _CHECK_BYTES, 0, False
        self._ignore_trailers(True)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, unless it has been answered without."""
        self._had_content = True
        request = self.request
        if request is not None and not request.answered:
            request.body.append(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if self._upgrade:
            return
        if self._chunked:
            self._ignore_trailers(False)
        self._chunked, self._left = b"", 0
        self._between = True
        if self.request is not None:
            self.request.body.finish()
