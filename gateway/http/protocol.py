"""uvicorn's HTTP/1.1 protocol with what it leaves to a proxy: bounds on the head, and our own refusals."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.domain.errors import DeadlineExceeded, MalformedRequest, TritonflareError
from gateway.http.app import App

MAX_HEAD_BYTES = 64 * 1024
"""Longest request line and headers, together."""

_LINGER_S = 1.0
_UPGRADE = re.compile(rb"(?<=\r\n)upgrade:", re.IGNORECASE)
# As long as what it replaces, so that nothing moves.
_IGNORED = b"ignored:"
# A line of a head that may become an Upgrade; the empty line that ends a head may not.
_PERHAPS_UPGRADE = re.compile(rb"(?<!\r\n)\r(?:\n(?:u(?:p(?:g(?:r(?:a(?:de?)?)?)?)?)?)?)?\Z", re.IGNORECASE)

_LONGEST_HELD = len(b"\r\nupgrade")
_HOSTS = {"1.0": (0, 1), "1.1": (1,)}
"""Versions that are spoken, and how many Host headers each may have."""


class HttpProtocol(HttpToolsProtocol):
    """Bounds the head in size and time, ignores upgrades, and refuses with the API's envelope."""

    _in_head = False
    """Between the first byte of a request and the end of its head."""
    _head_bytes = 0
    _fed_bytes = 0
    """Length of what the parser is looking at."""
    _begun = 0
    """Requests that began in it."""
    _held = b""
    """End of what came, kept until it is clear whether it begins an Upgrade."""
    _refused = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time in which the first head must come."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hide an ``Upgrade`` header from the parser, which would stop before the body.

        Java's client offers h2c on every clear-text request, and a server may ignore that (RFC 9110,
        section 7.8). A JSON body cannot be hit: a raw line break inside a string is not JSON.
        """
        if self._refused:
            return
        data = _UPGRADE.sub(_IGNORED, self._held + data)
        self._held = b""
        perhaps = _PERHAPS_UPGRADE.search(data, max(0, len(data) - _LONGEST_HELD))
        if perhaps is None:
            self._feed(data)
            return
        self._feed(data[: perhaps.start()])
        if self._in_head:
            self._held = perhaps[0]
        else:
            self._feed(perhaps[0])

    def _feed(self, data: bytes) -> None:
        if self._refused:
            return
        between = not self._in_head and self._idle()
        self._fed_bytes, self._begun = len(data), 0
        super().data_received(data)
        if self._in_head:
            # Where other requests stand before it in the same data, that much of the head is not counted.
            whole = self._begun == 0 or (between and self._begun == 1)
            self._head_bytes += len(data) if whole else 0
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(MalformedRequest())
        if (self._in_head or self._idle()) and self._timer is None:
            # Where a head has begun, or line breaks before one have ended the keep-alive time.
            self._start_timer()

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._begun += 1

    def on_headers_complete(self) -> None:
        """End the head.

        Raises:
            ValueError: it is too large, of another version than 1.0 and 1.1, or names no host or several
                (RFC 9112, section 3.2); the parser turns this into one of its own errors.
        """
        self._in_head = False
        self._stop_timer()
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts not in _HOSTS.get(self.parser.get_http_version(), ()) or self._is_too_large():
            raise ValueError("head")
        super().on_headers_complete()
        # Trailers go where nobody looks: they could bring credentials (RFC 9110, section 6.5.1).
        self.headers = []

    def _is_too_large(self) -> bool:
        if self._head_bytes + self._fed_bytes <= MAX_HEAD_BYTES:
            return False  # so much for almost every request
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no HTTP request."""
        self._refuse(MalformedRequest())

    def _refuse(self, error: TritonflareError) -> None:
        """Answer and end the connection, after the answers to requests that came in full."""
        self._refused = True
        self._stop_timer()
        self.flow.resume_reading()
        cycle, answered = self.cycle, False
        if not self._idle():
            if self.pipeline and cycle.more_body:
                # Half a request behind others: in its turn it gets the refusal of an empty body.
                cycle.body, cycle.more_body = bytearray(), False
                cycle.message_event.set()
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            answered, cycle.disconnected = cycle.response_started, True
            cycle.message_event.set()
        if not answered:
            self.transport.write(self._message(error))
        # Closing on bytes that were not read would reset the connection, and the answer with it.
        self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _message(self, error: TritonflareError) -> bytes:
        response, headers = cast(App, self.config.app).refuse(error)
        status = HTTPStatus(response.status)
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        lines += map(b": ".join, (*self.server_state.default_headers, *headers, (b"connection", b"close")))
        return b"\r\n".join(lines) + b"\r\n\r\n" + response.body

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.timeout_keep_alive, self._time_is_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        self._timer = None
        if not self._idle():
            # Reading may be paused while earlier requests are answered.
            self._start_timer()
        elif self._in_head:
            self._refuse(DeadlineExceeded())
        else:
            self.transport.close()
