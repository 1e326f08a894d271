"""One HTTP/1.1 connection: requests in, one answer each, in their order.

`RequestParser` makes the requests; this is the little that a gateway needs around it: bounds on time and
memory, pipelining, back-pressure, our own refusals, an answer in one write, an end that loses no answer.
ARCHITECTURE.md has what an ASGI server between would cost.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.errors import RequestError, RequestTimeout, ServerBusy
from gateway.server.lingering_close import LingeringClose
from gateway.server.message import Header, HttpRequest, Response
from gateway.server.parser import RequestParser
from gateway.server.sockets import has_unread
from gateway.server.wire import rendered

_log = logging.getLogger("tritonflare.http")

PROBE_S = 0.1
"""After that long with his side ended, it is found out whether the caller still waits for the answer."""
ARRIVING_S = 1.0
"""A head that has begun to arrive at the end of the gateway gets so long."""

_HIGH_WATER_BYTES = 64 * 1024
"""Body that is kept before somebody asks for more."""
_UNCOUNTED_BYTES = 4 * 1024
"""Less than this is not counted, so that nearly every request costs nothing here."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestHandler(Protocol):
    """What answers the requests; neither method raises."""

    async def __call__(self, request: HttpRequest) -> tuple[Response, Sequence[Header]]:
        """Answer a request, with all headers but those that belong to the connection."""
        ...

    def refuse(self, error: RequestError) -> tuple[Response, Sequence[Header]]:
        """Answer what never became a request."""
        ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """What a connection may take its time for, in seconds; see the settings of the same names."""

    keep_alive_s: float
    transfer_s: float


class HttpConnection(asyncio.Protocol):
    """One connection; it is in the limiter while it is open."""

    def __init__(self, app: RequestHandler, limiter: ConnectionLimiter, timeouts: Timeouts) -> None:
        self._app = app
        self._limiter = limiter
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser: RequestParser
        self._ending: LingeringClose
        self._unread = b""
        """What came behind the request that is under way; it is parsed when that is answered."""
        self._unread_from = 0
        self._counted = 0
        """What the limiter knows of the bytes that are kept."""
        self._current: HttpRequest | None = None
        """The request that is being answered."""
        self.task: asyncio.Task[None] | None = None
        self._deaf = False
        """Nothing is parsed any more."""
        self._ended = False
        """The caller has ended his side."""
        self._probed = False
        self._has_room = True
        self._finishing = False
        self._writable: asyncio.Future[None] | None = None
        self._since = 0.0
        """When the connection became idle, or the head that is arriving began."""
        self._timer: asyncio.TimerHandle

    # --- the transport's side ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time in which the first head must come."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._parser = RequestParser(
            transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        )
        self._ending = LingeringClose(self._transport, self._timeouts.transfer_s)
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._timeouts.keep_alive_s, self._check_timeouts)
        self._has_room = self._limiter.add(self)
        if not self._has_room:
            if self._limiter.is_over_limit:
                self.abort()
            else:
                self._end(ServerBusy())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works on its requests."""
        self._limiter.remove(self)
        self._timer.cancel()
        self._ending.cancel()
        self._unread = b""
        self._deaf = True
        self._parser.close()
        if self._current is not None:
            self._current.disconnect()
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
        if self._deaf:
            self._ending.discard(len(data))
        elif self._is_busy():
            self._keep(self._unread[self._unread_from :] + data if self._unread else data, 0)
        else:
            self._read(data, 0)

    def eof_received(self) -> bool:
        """Answer what is complete: who ends his side may still read (RFC 9293, section 3.6).

        In TLS the end of a side is that of the connection: asyncio knows no other.
        """
        if not self._transport.can_write_eof():
            return False
        if self._ending.lingers or not self._is_busy():
            self._close_now()
            return False
        if not self._ended:
            self._ended = True
            self._timer.cancel()
            self._timer = self._loop.call_later(PROBE_S, self._probe)
        return True

    # --- reading ----------------------------------------------------------------------------------

    def _is_busy(self) -> bool:
        """Whether a request is under way that is there in full."""
        return self._current is not None and self._current.body.complete

    def _read(self, data: bytes, at: int) -> None:
        """Parse as far as the end of one request; what is behind it has to wait for the answer."""
        parser, was_in_head, size = self._parser, self._parser.in_head, len(data)
        current = self._current
        try:
            while at < size and (current is None or not current.body.complete):
                at = parser.feed(data, at)
                if current is None and parser.request is not None and not parser.request.answered:
                    current = parser.request
                    self._start(current)
        except RequestError as error:
            self._refuse(error)
            return
        if at == size and not self._counted and current is not None and current.body.complete:
            kept = len(current.body.data)
            if kept <= _UNCOUNTED_BYTES:  # as of nearly every request
                return
        if parser.in_head and not was_in_head:
            self._since = self._loop.time()
            self._timer.cancel()
            self._timer = self._loop.call_later(self._timeouts.transfer_s, self._check_timeouts)
        self._keep(data, at)

    def _keep(self, data: bytes, at: int) -> None:
        """Keep what was not parsed, and see to it that it does not become too much."""
        request, left = self._current, len(data) - at
        if left == 0:
            self._unread, self._unread_from = b"", 0
        elif request is not None and not request.keep_alive:
            self._deaf = True  # what follows `Connection: close` is nobody's
            self._ending.discard(left)
            left = 0
        else:
            self._unread, self._unread_from = (data, at) if at < left else (data[at:], 0)
            self._transport.pause_reading()  # who sends many at once waits for the answers
        size = len(self._unread) + (self._parser.head_bytes if self._parser.in_head else 0)
        if request is not None:
            size += len(request.body.data)
            if not request.body.complete and len(request.body.data) > _HIGH_WATER_BYTES:
                self._transport.pause_reading()
        self._count(size)

    def _count(self, size: int) -> None:
        """Tell how much is kept of requests that are not answered yet; there may be no room for it."""
        if size <= _UNCOUNTED_BYTES:
            size = 0
        if size == self._counted:
            return
        self._counted = size
        if self._limiter.buffers(self, size):
            return
        if self._unread:
            self._ending.discard(len(self._unread))
            self._unread = b""
            self._deaf = True  # the answer that is due is the last
            self._transport.resume_reading()
            self._count(len(self._current.body.data) if self._current is not None else 0)
            return
        request = self._current
        if request is not None:  # complete or not, it does not fit
            request.body.complete = False
            request.body.discard()
            self._count(0)
        self._refuse(ServerBusy())

    def _refuse(self, error: RequestError) -> None:
        """Parse no more; answer what cannot be, unless that is the rest of a request with an answer."""
        self._deaf = True
        self._limiter.mark_busy(self)
        self._unread = b""
        request = self._parser.request
        if request is None:
            self._end(error)
            return
        # Its head was good, so it gets the answer that is due, whether the body is looked at or not.
        request.body.fail(type(error))
        if self._current is not None:
            self._resume_reading()
        elif request.answered:
            self._linger()
        else:
            self._start(request)

    # --- answering --------------------------------------------------------------------------------

    def _start(self, request: HttpRequest) -> None:
        self._limiter.mark_busy(self)
        self._current = request
        self.task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: HttpRequest) -> None:
        request.body.on_wait = self._wait_for_body
        try:
            response, headers = await self._app(request)
        except Exception:
            _log.exception("no answer to a request")
            self.abort()
            return
        if self._writable is not None and not await self._ending.is_taken(self._writable):
            self.abort()
            request.disconnect()
        if not request.disconnected:
            self._write(request, response, headers)
        self._current = None
        self._since = self._loop.time()
        if not (request.disconnected or self._transport.is_closing()):
            self._go_on(request)

    def _wait_for_body(self) -> None:
        """Ask for the body, or for the rest of it."""
        request = self._current
        if request is not None and not request.body.data and _expects_go_ahead(request):
            self._transport.write(_CONTINUE)
        self._resume_reading()

    def _write(self, request: HttpRequest, response: Response, headers: Sequence[Header]) -> None:
        if (response.status >= 400 or not request.body.complete) and request.headers(b"expect"):
            # Who asked before sending the body may take this for a no and never send it.
            request.keep_alive = False
        request.answered = True
        last = not request.keep_alive or self._deaf or (not self._unread and (self._finishing or self._ended))
        self._transport.write(rendered(response, headers, close=last, with_body=request.method != "HEAD"))

    def _go_on(self, request: HttpRequest) -> None:
        """Read on behind an answer, or close."""
        if self._deaf or not request.keep_alive:
            self._close()
            return
        if self._unread:
            unread, self._unread = self._unread, b""
            self._read(unread, self._unread_from)
            if self._deaf or self._unread:
                return
        elif self._counted:
            self._count(0)
        if self._current is None or (self._ended and not self._current.body.complete):
            if self._ended or self._finishing:
                self._close()
                return
            self._limiter.mark_idle(self)
        self._resume_reading()

    def _resume_reading(self) -> None:
        if not self._ended and not self._transport.is_closing():
            self._transport.resume_reading()

    # --- the end ----------------------------------------------------------------------------------

    def _end(self, error: RequestError) -> None:
        """Refuse what is no request."""
        response, headers = self._app.refuse(error)
        self._transport.write(rendered(response, headers, close=True, with_body=True))
        self._linger()

    def _close(self) -> None:
        """Close when what was written is sent, but not on somebody who may still be sending."""
        if self._ending.lingers or self._transport.is_closing():
            return
        request = self._parser.request
        half = request is not None and request.answered and not request.body.complete
        if (half or self._ending.discarded) and not self._ended:
            self._linger()
        else:
            self._close_now()

    def _linger(self) -> None:
        self._deaf = True
        self._count(0)
        self._timer.cancel()
        self._ending.linger()
        if self._has_room:
            self._limiter.mark_idle(self)

    def _close_now(self) -> None:
        self._deaf = True
        self._count(0)
        self._timer.cancel()
        self._ending.close()

    def _probe(self) -> None:
        """Find out whether a caller who has ended his side is still there: if not, what is sent is reset.

        Reading would not show it behind the end. HTTP/1.0 knows no answer before the answer.
        """
        if self._current is None or self._transport.is_closing():
            return
        if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()
            return
        if not self._probed and self._parser.version != "1.0":
            self._probed = True
            self._transport.write(_CONTINUE)
        self._timer = self._loop.call_later(PROBE_S, self._probe)

    def _check_timeouts(self) -> None:
        """Once in a while: end what has been idle, or in one head, for too long."""
        if self._deaf:
            return
        in_head = self._parser.in_head
        longest = self._timeouts.transfer_s if in_head else self._timeouts.keep_alive_s
        left = self._since + longest - self._loop.time()
        if self._current is not None:
            left = longest
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_timeouts)
        elif in_head:
            self._refuse(RequestTimeout())
        else:
            self._close()

    def finish(self) -> bool:
        """Close after the answers to the requests that are there; return False if one has begun to arrive."""
        self._finishing = True
        if self._current is None and not self._deaf:
            arriving = self._parser.in_head and self._loop.time() - self._since < ARRIVING_S
            if arriving or has_unread(self._transport.get_extra_info("socket").fileno()):
                return False
            self._close()
        return True

    def close_after_response(self) -> None:
        """Let the next answer be the last."""
        self._finishing = True

    def make_room(self) -> None:
        """Close for another connection: no request is under way here."""
        if self._ending.lingers or self._transport.get_write_buffer_size():
            self.abort()  # the caller has not read his last answer
        else:
            self._close_now()

    def abort(self) -> None:
        """Close now, whatever is under way."""
        self._transport.abort()


def _expects_go_ahead(request: HttpRequest) -> bool:
    return [value.lower() for value in request.headers(b"expect")] == ["100-continue"]
