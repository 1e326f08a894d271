"""Parses the bytes of a connection into requests (RFC 9112), one at a time.

httptools (llhttp) parses the bytes, but does not report the offset at which a request ends. A request
without a body ends behind an empty line, and so does a chunked one. `RequestParser` therefore never feeds
llhttp past the next empty line, or past the announced length of a body, before llhttp has reported whether
the request ends there. So nothing is parsed ahead, no byte of content changes, and the result does not
depend on how the network segments the bytes.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import httptools

from gateway.server.errors import InvalidRequest, RequestError
from gateway.server.framing import (
    EMPTY_LINE,
    FRAMING_HEADERS,
    MAX_HEAD_BYTES,
    ChunkOverhead,
    EmptyLineFinder,
    body_length,
    check_version_and_host,
)
from gateway.server.message import Address, Header, HttpRequest
from gateway.server.wire import target_of

MAX_HEADER_LINES = 128
"""Each line costs about a hundred bytes of memory, however short it is."""

_LINE_ENDS = re.compile(rb"[\r\n]*")
_COPY_BYTES = 2048
"""Below this size, copying a slice is faster than creating a memoryview of it."""


class Phase(Enum):
    """Which part of a request is expected next."""

    BETWEEN = auto()
    """No byte of the next request has arrived."""
    HEAD = auto()
    SIZED_BODY = auto()
    CHUNKED_BODY = auto()


_BETWEEN, _HEAD, _SIZED_BODY, _CHUNKED_BODY = Phase  # access through the class takes 70 ns


class RequestParser:
    """Parses the requests of one connection.

    `request` is the one whose head was completed last; its body is filled in as it arrives. An error is
    final: nothing may be fed after it.
    """

    def __init__(self, client: Address | None = None, server: Address | None = None) -> None:
        self._client = client
        self._server = server
        self._http = self._new_parser()
        self.request: HttpRequest | None = None
        self.head_bytes = 0
        """Size so far of the head that is arriving."""
        self.version = ""
        """HTTP version of `request`: "1.1", for example."""
        self._phase = _BETWEEN
        self._url = b""
        self._headers: list[Header] = []
        self._hosts: list[bytes] = []
        self._body_left = 0
        """Bytes of a sized body that have not arrived."""
        self._empty_line = EmptyLineFinder()
        self._overhead = ChunkOverhead()
        self._has_upgrade = False
        self._replays_head = False

    @property
    def in_head(self) -> bool:
        """Whether a head has begun to arrive and is incomplete."""
        return self._phase is _HEAD

    def close(self) -> None:
        """Drop the references back to this object and to the connection, which would form cycles."""
        del self._http
        self.request = None

    @property
    def in_unneeded_body(self) -> bool:
        """Whether the body of a request is arriving that has been responded to already."""
        request = self.request
        return request is not None and request.answered and not request.body.complete

    def release_request(self) -> None:
        """Free the request that has been responded to, as its connection may stay idle for long."""
        self._headers = []
        request = self.request
        if request is not None and request.body.complete:
            self.request = None
        elif request is not None:
            request.release()

    def feed(self, data: bytes, at: int = 0) -> int:
        """Parse ``data[at:]`` up to the end of one request; return the offset behind what was parsed.

        Raises:
            InvalidRequest: the bytes are not HTTP/1.0 or 1.1, the head is too large, Host is missing,
                invalid or repeated (section 3.2), or the framing is ambiguous (section 6.3).
            UnsupportedTransferCoding: the body is in a coding other than chunked (section 6.1).
        """
        size = len(data)
        if self._phase is _BETWEEN:
            if data[at : at + 1] <= b"\r":  # empty lines before a request are ignored (section 2.2)
                found = _LINE_ENDS.match(data, at)
                at = found.end() if found else at
            if at < size:
                self._begin_head()
        while at < size and self._phase is not _BETWEEN:
            if self._phase is _HEAD:
                at = self._feed_head(data, at)
            elif self._phase is _SIZED_BODY:
                at = self._feed_sized_body(data, at)
            else:
                at = self._feed_chunked_body(data, at)
        return at

    def _begin_head(self) -> None:
        self._phase = _HEAD
        self.request = None
        self.head_bytes = 0
        self._url = b""
        self._headers = []
        self._empty_line.reset()

    def _feed_head(self, data: bytes, at: int) -> int:
        end = self._empty_line.end(data, at)
        self.head_bytes += end - at
        if self.head_bytes > MAX_HEAD_BYTES:
            raise InvalidRequest
        self._parse(data, at, end)
        if self._phase is _HEAD or self._phase is _CHUNKED_BODY:
            self._empty_line.advance(data, at, end)
        return end

    def _feed_sized_body(self, data: bytes, at: int) -> int:
        end = min(len(data), at + self._body_left)
        self._body_left -= end - at
        self._parse(data, at, end)
        if not self._body_left and self._phase is not _BETWEEN:
            raise InvalidRequest  # llhttp counted otherwise
        return end

    def _feed_chunked_body(self, data: bytes, at: int) -> int:
        end = min(self._empty_line.end(data, at), at + self._overhead.until_check)
        self._parse(data, at, end)
        self._empty_line.advance(data, at, end)
        self._overhead.parsed(end - at)
        return end

    def _parse(self, data: bytes, at: int, end: int) -> None:
        """Feed ``data[at:end]`` to llhttp, which calls the ``on_`` methods below."""
        size = end - at
        if size == len(data):
            piece: bytes | memoryview = data
        else:
            piece = data[at:end] if size < _COPY_BYTES else memoryview(data)[at:end]
        try:
            self._http.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._ignore_upgrade()
        except httptools.HttpParserError as error:
            raise _refusal(error) from None

    def _ignore_upgrade(self) -> None:
        """Continue with HTTP/1.1 behind a head with Upgrade (RFC 9110, section 7.8).

        llhttp leaves the body to the other protocol. So a new parser, which gets a head with nothing but the
        framing, parses the body.
        """
        self._has_upgrade = False
        request = self.request
        is_chunked = self._phase is _CHUNKED_BODY
        if request is None or request.method == "CONNECT" or not (is_chunked or self._body_left):
            self.on_message_complete()
            return
        framing = b"transfer-encoding: chunked" if is_chunked else b"content-length: %d" % self._body_left
        self._http = self._new_parser()
        self._replays_head = True
        self._http.feed_data(b"POST / HTTP/1.1\r\nhost:\r\n" + framing + EMPTY_LINE)
        self._replays_head = False
        if is_chunked:
            self._ignore_trailers(True)

    def _new_parser(self) -> httptools.HttpRequestParser:
        http = httptools.HttpRequestParser(self)
        # Without this, llhttp discards all bytes behind `Connection: close`, even if that stands in a
        # trailer. The connection stops feeding there by itself.
        http.set_dangerous_leniencies(lenient_keep_alive=True)
        return http

    def _ignore_trailers(self, ignore: bool) -> None:
        """Allow framing headers in trailers, where they have no effect; in heads llhttp is strict."""
        self._http.set_dangerous_leniencies(lenient_chunked_length=ignore, lenient_transfer_encoding=ignore)

    # --- called by httptools ----------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Add a part of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; a trailer is dropped, since it could carry credentials (RFC 9110, section 6.5.1)."""
        if self._phase is _HEAD:
            if len(self._headers) == MAX_HEADER_LINES:
                raise InvalidRequest
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Check the head and make the request.

        Raises:
            RequestError: as for `feed`, which raises it again: llhttp reports an error of its own.
        """
        if self._replays_head:
            return
        headers = self._headers
        framing = [header for header in headers if header[0] in FRAMING_HEADERS]
        version = self._http.get_http_version()
        hosts = [value for name, value in framing if name == b"host"]
        if hosts != self._hosts or version != self.version:  # those of the previous request are valid
            check_version_and_host(version, hosts)
            self._hosts, self.version = hosts, version
        length = body_length(framing, version)
        if version == "1.0":
            # A 1.0 client does not understand 100 (Continue): RFC 9110, section 10.1.1.
            headers = [header for header in headers if header[0] != b"expect"]
        method = self._http.get_method().decode("ascii")
        request = HttpRequest(
            method, *target_of(self._url), headers, client=self._client, server=self._server
        )
        # Asked now, because llhttp would let a trailer change it.
        request.keep_alive = version != "1.0" and method != "CONNECT" and self._http.should_keep_alive()
        self.request = request
        self._has_upgrade = self._http.should_upgrade()
        if length is None:
            self._begin_chunked_body()
        else:
            self._phase, self._body_left = _SIZED_BODY, length

    def _begin_chunked_body(self) -> None:
        self._phase, self._body_left = _CHUNKED_BODY, 0
        self._overhead.reset()
        self._ignore_trailers(True)

    def on_body(self, body: bytes) -> None:
        """Add a part of the body, unless the request has been answered without it."""
        if self._phase is _CHUNKED_BODY:
            self._overhead.content()
        request = self.request
        if request is not None and not request.answered:
            request.body.append(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if self._has_upgrade:
            return
        if self._phase is _CHUNKED_BODY:
            self._ignore_trailers(False)
        self._phase, self._body_left = _BETWEEN, 0
        if self.request is not None:
            self.request.body.finish()


def _refusal(error: httptools.HttpParserError) -> RequestError:
    """Return what an ``on_`` method raised, which httptools chains to its own error, or InvalidRequest."""
    raised = error.__context__
    return type(raised)() if isinstance(raised, RequestError) else InvalidRequest()
