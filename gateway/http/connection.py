"""One HTTP/1.1 connection: requests in, one answer each, in their order.

httptools (llhttp) parses; this is the little that a gateway needs around it: bounds on the head in size
and time, pipelining, back-pressure, our own refusals, an answer in one write. ARCHITECTURE.md has what
an ASGI server between would cost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from gateway.domain.errors import DeadlineExceeded, MalformedRequest, Overloaded, TritonflareError
from gateway.http.crowd import Crowd
from gateway.http.message import Address, Header, Request, Response
from gateway.http.upgrade import hide_upgrade
from gateway.http.wire import rendered, target_of

_log = logging.getLogger("tritonflare.http")

MAX_HEAD_BYTES = 64 * 1024
"""Longest request line and headers, together."""
LINGER_S = 1.0
"""How long what comes after an answer is read and thrown away: closing on it would reset the connection,
and the caller would see that instead of the answer."""

_HIGH_WATER_BYTES = 64 * 1024
"""Body that is kept before somebody asks for more."""
_HOSTS = {"1.0": (0, 1), "1.1": (1,)}
"""Versions that are spoken, and how many Host headers each may have."""


class App(Protocol):
    """What answers the requests; neither method raises."""

    async def __call__(self, request: Request) -> tuple[Response, Sequence[Header]]:
        """Answer a request, with all headers but those that belong to the connection."""
        ...

    def refuse(self, error: TritonflareError) -> tuple[Response, Sequence[Header]]:
        """Answer what never became a request."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """What a connection may take its time for, in seconds; see the settings of the same names."""

    keep_alive_s: float
    transfer_s: float


class Connection(asyncio.Protocol):
    """One connection; it is in the crowd while it is open."""

    def __init__(self, app: App, crowd: Crowd, patience: Patience) -> None:
        self._app = app
        self._crowd = crowd
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        # What follows a request with `Connection: close` is nobody's, and no reason not to answer that one.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._transport: asyncio.Transport
        self._client: Address | None = None
        self._server: Address | None = None
        # What is being parsed.
        self._url = b""
        self._headers: list[Header] = []
        self._incoming: Request | None = None
        """The request whose body is being received."""
        self._in_head = False
        """Between the first byte of a request and the end of its head."""
        self._head_bytes = 0
        self._fed_bytes = 0
        """Length of what the parser is looking at."""
        self._begun = 0
        """Requests that began in it."""
        self._rest_bytes = 0
        """Chunk extensions and trailers since the last byte of a body."""
        self._held = b""
        """End of what came, kept until it is clear whether it begins an Upgrade."""
        # What is being answered.
        self._current: Request | None = None
        self._waiting: deque[Request] = deque()
        self.task: asyncio.Task[None] | None = None
        self._refused = False
        """Nothing is read any more: what came is no HTTP."""
        self._refusal: TritonflareError | None = None
        """What is said about that after the answers to what came before."""
        self._finishing = False
        self._writable: asyncio.Future[None] | None = None
        self._since = 0.0
        """When the connection became idle, or the head that is arriving began."""
        self._timer: asyncio.TimerHandle

    # --- the transport's side ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time in which the first head must come."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._client = transport.get_extra_info("peername")
        self._server = transport.get_extra_info("sockname")
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._patience.keep_alive_s, self._look)
        if not self._crowd.enter(self):
            self._refused = True
            if self._crowd.is_overfull:
                self.abort()
            else:
                self._end(Overloaded())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works on its requests."""
        self._crowd.leave(self)
        self._timer.cancel()
        self._waiting.clear()
        self._refused = True
        del self._parser  # it holds our methods, and only the collector would find the two
        if self._current is not None:
            self._current.lose()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Hold the next answer back: the caller does not read."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Go on."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def data_received(self, data: bytes) -> None:
        """Parse what came, and begin to answer."""
        if self._refused:
            return
        if self._held:
            data, self._held = self._held + data, b""
        data, perhaps_upgrade = hide_upgrade(data)
        self._feed(data)
        if perhaps_upgrade and self._in_head:
            self._held = perhaps_upgrade
        elif perhaps_upgrade:
            self._feed(perhaps_upgrade)
        if self._waiting:
            if self._current is None:
                self._next()
            else:
                self._transport.pause_reading()  # who sends many at once waits for the answers

    # --- the parser's side ------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        if len(data) <= MAX_HEAD_BYTES:
            self._parse(data)
            return
        # In pieces: what is refused must not depend on how much came at once.
        for at in range(0, len(data), MAX_HEAD_BYTES):
            self._parse(data[at : at + MAX_HEAD_BYTES])

    def _parse(self, data: bytes) -> None:
        if self._refused:
            return
        was_in_head, between = self._in_head, not self._in_head and self._incoming is None
        incoming = self._incoming
        self._rest_bytes += len(data)
        self._fed_bytes, self._begun = len(data), 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # CONNECT: what follows would be another protocol.
            self._waiting[-1].keep_alive = False
            self._refused = True
        except httptools.HttpParserError:
            self._refuse(MalformedRequest())
            return
        if incoming is None or self._incoming is not incoming:
            self._rest_bytes = 0
        elif self._rest_bytes > MAX_HEAD_BYTES:
            self._refuse(MalformedRequest())
        if self._in_head:
            if not was_in_head:
                self._since = self._loop.time()
                self._timer.cancel()
                self._timer = self._loop.call_later(self._patience.transfer_s, self._look)
            # Where other requests stand before it in the same data, that much of the head is not counted.
            if self._begun == 0 or (between and self._begun == 1):
                self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(MalformedRequest())

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._url = b""
        self._headers = []
        self._in_head = True
        self._head_bytes = 0
        self._begun += 1

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are dropped: they could bring credentials (RFC 9110, section 6.5.1)."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """End the head and make the request.

        Raises:
            ValueError: it is too large, of another version than 1.0 and 1.1, or names no host or several
                (RFC 9112, section 3.2); the parser turns this into one of its own errors.
        """
        self._in_head = False
        version = self._parser.get_http_version()
        headers = self._headers
        hosts = [name for name, _ in headers].count(b"host")
        if hosts not in _HOSTS.get(version, ()) or self._is_too_large():
            raise ValueError("head")
        path, query = target_of(self._url)
        request = Request(
            self._parser.get_method().decode("ascii"),
            path,
            query,
            headers,
            client=self._client,
            server=self._server,
        )
        request.keep_alive = version != "1.0" and self._parser.should_keep_alive()
        self._incoming = request
        self._waiting.append(request)

    def _is_too_large(self) -> bool:
        if self._head_bytes + self._fed_bytes <= MAX_HEAD_BYTES:
            return False  # so much for almost every request
        return len(self._url) + sum(len(name) + len(value) for name, value in self._headers) > MAX_HEAD_BYTES

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, unless it has been answered without."""
        self._rest_bytes = 0
        request = self._incoming
        if request is None or request.answered:
            return
        request.add(body)
        if len(request.body) > _HIGH_WATER_BYTES:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """End the request."""
        if self._incoming is not None:
            self._incoming.end()
            self._incoming = None

    # --- answering --------------------------------------------------------------------------------

    def _next(self) -> None:
        self._crowd.works(self)
        self._current = self._waiting.popleft()
        if self._waiting:
            self._transport.pause_reading()
        self.task = self._loop.create_task(self._serve(self._current))

    async def _serve(self, request: Request) -> None:
        request.on_wait = self._wait_for_body
        try:
            response, headers = await self._app(request)
        except Exception:
            _log.exception("no answer to a request")
            self.abort()
            return
        if self._writable is not None:
            await asyncio.wait((self._writable,), timeout=self._patience.transfer_s)
            if self._writable is not None:
                self.abort()  # the caller reads nothing
                request.lose()
        if not request.lost:
            self._write(request, response, headers)
            if not request.complete:
                await self._discard(request)
        self._current = None
        self._since = self._loop.time()
        if request.lost or self._transport.is_closing():
            return
        if self._waiting:
            self._next()
        elif not request.keep_alive or self._finishing:
            self._close()
        elif self._refusal is not None:
            self._end(self._refusal)
        else:
            self._crowd.rests(self)
            self._transport.resume_reading()

    def _wait_for_body(self) -> None:
        """Ask for the body, or for the rest of it."""
        request = self._current
        if request is not None and not request.body and _expects_go_ahead(request):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._transport.resume_reading()

    def _write(self, request: Request, response: Response, headers: Sequence[Header]) -> None:
        if not request.complete and request.headers(b"expect"):
            # Who asked before sending the body may take this for a no and never send it.
            request.keep_alive = False
        request.answered = True
        last = not self._waiting and (not request.keep_alive or self._finishing)
        self._transport.write(rendered(response, headers, close=last, with_body=request.method != "HEAD"))

    async def _discard(self, request: Request) -> None:
        """Throw away the body of a request that was answered without."""
        self._transport.resume_reading()
        ends = self._loop.time() + LINGER_S
        while not (request.complete or request.lost) and self._loop.time() < ends:
            await asyncio.sleep(0.01)

    def _refuse(self, error: TritonflareError) -> None:
        """Answer and end the connection, after the answers to requests that came in full."""
        self._refused = True
        self._crowd.works(self)
        self._transport.resume_reading()
        half, self._incoming = self._incoming, None
        if half is not None and half in self._waiting:
            self._waiting.remove(half)
        if half is not None and half.answered and half is not self._current:
            self._linger()  # its body was nobody's, and so is what breaks it
        elif (self._current is not None and self._current is not half) or self._waiting:
            self._refusal = error
        else:
            self._end(error)

    def _end(self, error: TritonflareError) -> None:
        """Refuse what cannot be read any further, unless it has its answer already."""
        if self._current is not None:
            self._current.lose()
        if self._current is None or not self._current.answered:
            response, headers = self._app.refuse(error)
            self._transport.write(rendered(response, headers, close=True, with_body=True))
        self._linger()

    def _linger(self) -> None:
        """Close in a while: on bytes that were not read, closing would reset and lose the answer."""
        if self._transport.can_write_eof():  # TLS cannot
            self._transport.write_eof()
        self._loop.call_later(LINGER_S, self._close)

    def _close(self) -> None:
        """Close when what was written is sent, and before long in any case: the caller may read nothing."""
        if not self._transport.is_closing():
            self._transport.close()
            self._timer.cancel()
            self._timer = self._loop.call_later(self._patience.transfer_s, self._transport.abort)

    # --- time and the end -------------------------------------------------------------------------

    def _look(self) -> None:
        """Once in a while: end what has been idle, or in one head, for too long."""
        if self._refused:
            return
        longest = self._patience.transfer_s if self._in_head else self._patience.keep_alive_s
        left = self._since + longest - self._loop.time()
        if self._current is not None:
            left = longest
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif self._in_head:
            self._refuse(DeadlineExceeded())
        else:
            self._close()

    def finish(self) -> None:
        """Close after the answers to the requests that are there."""
        self._finishing = True
        if self._current is None:
            self._close()

    def say_last(self) -> None:
        """Let the next answer be the last."""
        self._finishing = True

    def make_room(self) -> None:
        """Close for another connection: no request is under way here."""
        if self._transport.get_write_buffer_size():
            self.abort()  # the caller has not read his last answer
        else:
            self._close()

    def abort(self) -> None:
        """Close now, whatever is under way."""
        self._transport.abort()


def _expects_go_ahead(request: Request) -> bool:
    return [value.lower() for value in request.headers(b"expect")] == ["100-continue"]
