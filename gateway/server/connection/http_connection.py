"""One HTTP/1.1 connection: parses requests, runs the handler on one after the other, writes responses.

`RequestParser` parses; this adds timeouts, limits on memory, pipelining, back-pressure, refusals, and a close
that loses no response. docs/decisions/http-server.md compares it with other servers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import cast

from gateway.server.connection.half_close import CONTINUE, HalfCloseProbe
from gateway.server.connection.lingering_close import LingeringClose
from gateway.server.connection.state import ConnectionState
from gateway.server.connection.timeouts import DRAIN_HEAD_S, ConnectionTimer, Timeouts
from gateway.server.connection.write_flow import WriteFlow
from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.errors import RequestError, RequestTimeout, ServerBusy
from gateway.server.message import Header, HttpRequest, RequestHandler, Response
from gateway.server.parser import RequestParser
from gateway.server.wire import rendered

_log = logging.getLogger("tritonflare.http")
_HIGH_WATER_BYTES = 64 * 1024
"""Above this much of a body, reading pauses until the handler waits for more."""
_UNCOUNTED_BYTES = 4 * 1024
"""Up to this much buffered, nothing is reported to the limiter, so that most requests cost nothing there."""

# Local names, because access through the class takes 70 ns.
_IDLE, _READING_HEAD, _READING_BODY, _RESPONDING, _LAST_RESPONSE, _LINGERING, _CLOSED = ConnectionState
_DISCARDING_INPUT = (_LAST_RESPONSE, _LINGERING, _CLOSED)


class HttpConnection(asyncio.Protocol):
    """One connection; the limiter counts it while it is open."""

    def __init__(self, app: RequestHandler, limiter: ConnectionLimiter, timeouts: Timeouts) -> None:
        self._app = app
        self._limiter = limiter
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._state = _IDLE
        self._request: HttpRequest | None = None
        """The request that the handler is responding to."""
        self.task: asyncio.Task[None] | None = None
        """Runs the handler."""
        self._pipelined, self._pipelined_from = b"", 0
        """Input behind the current request, and the offset at which it starts."""
        self._reported_bytes = 0
        """Buffered bytes that the limiter knows of."""
        self._close_after_response = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request, or refuse the connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self._parser = RequestParser(
            transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        )
        self._timer = ConnectionTimer()
        self._probe = HalfCloseProbe(self._transport, self._timer)
        self._write_flow = WriteFlow(self._transport, self._timeouts.transfer_s)
        self._closing = LingeringClose(self._transport, self._timer, self._timeouts.transfer_s)
        if self._limiter.add(self):
            self._timer.start(self._timeouts.keep_alive_s, self._check_timeouts)
        elif self._limiter.has_max_refused:
            self.abort()
        else:
            self._write_refusal(ServerBusy())
            self._linger(is_refused=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything, and notify the handler."""
        self._state = _CLOSED
        self._limiter.remove(self)
        self._timer.cancel()
        self._pipelined = b""
        self._parser.close()
        if self._request is not None:
            self._request.disconnect()
        self._write_flow.resume()

    def pause_writing(self) -> None:
        """Hold the next response back: the client does not read."""
        self._write_flow.pause()

    def resume_writing(self) -> None:
        """Continue to write."""
        self._write_flow.resume()

    def data_received(self, data: bytes) -> None:
        """Parse input, buffer it or discard it."""
        if self._state is _RESPONDING:
            self._buffer(self._pipelined[self._pipelined_from :] + data if self._pipelined else data, 0)
        elif self._state in _DISCARDING_INPUT:
            self._closing.discard(len(data))
        else:
            self._read(data, 0)

    def eof_received(self) -> bool:
        """Respond to a complete or malformed request: the client may have half-closed the connection.

        asyncio has no half-close in TLS: there the connection closes.
        """
        if not self._transport.can_write_eof():
            return False
        if self._state in (_RESPONDING, _LAST_RESPONSE):
            self._probe.start(self._parser)
            return True
        self._close_now()
        return False

    def _read(self, data: bytes, at: int) -> None:
        """Parse up to the end of one request; what follows waits for its response."""
        parser, request, size = self._parser, self._request, len(data)
        try:
            while at < size and (request is None or not request.body.complete):
                at = parser.feed(data, at)
                if request is None and parser.request is not None and not parser.request.answered:
                    request = parser.request
                    self._start_handler(request)
        except RequestError as error:
            self._refuse(error)
            return
        if request is None:
            self._await_head()
        elif not request.body.complete:
            self._state = _READING_BODY
        else:
            self._state = _RESPONDING
            if at == size and not self._reported_bytes and len(request.body.data) <= _UNCOUNTED_BYTES:
                return  # as with nearly every request
        self._buffer(data, at)

    def _await_head(self) -> None:
        """Limit the time for a head once it has begun to arrive."""
        if not self._parser.in_head:
            self._state = _IDLE
        elif self._state is not _READING_HEAD:
            self._state = _READING_HEAD
            self._timer.begin_phase()
            self._timer.start(self._timeouts.transfer_s, self._check_timeouts)

    def _buffer(self, data: bytes, at: int) -> None:
        """Keep ``data[at:]``, which has not been parsed, and limit what is buffered."""
        request, left = self._request, len(data) - at
        if not left:
            self._pipelined, self._pipelined_from = b"", 0
        elif request is not None and not request.keep_alive:
            self._state = _LAST_RESPONSE  # what follows `Connection: close` is not processed (section 9.6)
            self._closing.discard(left)
        else:
            self._pipelined, self._pipelined_from = (data, at) if at < left else (data[at:], 0)
            self._transport.pause_reading()  # until the response
        size = len(self._pipelined)
        if request is not None:
            size += len(request.body.data)
            if self._state is _READING_BODY and len(request.body.data) > _HIGH_WATER_BYTES:
                self._transport.pause_reading()
        elif self._state is _READING_HEAD:
            size += self._parser.head_bytes
        if not self._report_buffered(size):
            self._drop_buffered()

    def _drop_buffered(self) -> None:
        """Drop pipelined input if there is any; otherwise refuse the request itself."""
        request = self._request
        if self._pipelined:
            self._closing.discard(len(self._pipelined))
            self._pipelined = b""
            self._state = _LAST_RESPONSE
            self._resume_reading()
            if request is None or self._report_buffered(len(request.body.data)):
                return
        if request is not None:
            request.body.complete = False
            request.body.discard()
            self._report_buffered(0)
        self._refuse(ServerBusy())

    def _report_buffered(self, size: int) -> bool:
        """Report what is buffered of requests without a response; return False if it exceeds the limit."""
        if size <= _UNCOUNTED_BYTES:
            size = 0
        if size == self._reported_bytes:
            return True
        self._reported_bytes = size
        return self._limiter.set_buffered(self, size)

    def _resume_reading(self) -> None:
        if not self._probe.is_half_closed and not self._transport.is_closing():
            self._transport.resume_reading()

    def _start_handler(self, request: HttpRequest) -> None:
        self._limiter.mark_busy(self)
        self._request = request
        self.task = self._loop.create_task(self._respond(request))

    async def _respond(self, request: HttpRequest) -> None:
        if not request.body.complete:
            request.body.on_wait = self._read_body
        try:
            response, headers = await self._app(request)
        except Exception:
            _log.exception("the request handler failed")
            self.abort()
            return
        if self._write_flow.is_paused:
            await self._wait_until_writable(request)
        if not request.disconnected:
            self._write(request, response, headers)
            self._parser.release_request()
        self._request = None
        self._timer.begin_phase()
        if not (request.disconnected or self._transport.is_closing()):
            self._continue_after(request)

    async def _wait_until_writable(self, request: HttpRequest) -> None:
        """Wait for the client to read previous responses; meanwhile the connection may be evicted."""
        self._limiter.mark_idle(self)
        if await self._write_flow.resumed():
            self._limiter.mark_busy(self)
        else:
            self.abort()
            request.disconnect()

    def _read_body(self) -> None:
        """Read on, because the handler waits for more of the body."""
        request = self._request
        if request is not None and not request.body.data and request.expects_continue():
            self._transport.write(CONTINUE)
        self._resume_reading()

    def _write(self, request: HttpRequest, response: Response, headers: Sequence[Header]) -> None:
        if (response.status >= 400 or not request.body.complete) and request.headers(b"expect"):
            # The client may not send the body any more (RFC 9110, section 10.1.1).
            request.keep_alive = False
        request.answered = True
        last = not request.keep_alive or self._state is _LAST_RESPONSE
        if not (last or self._pipelined):
            last = self._probe.is_half_closed or self._close_after_response
        self._transport.write(rendered(response, headers, close=last, with_body=request.method != "HEAD"))

    def _continue_after(self, request: HttpRequest) -> None:
        """Read the next request, or close."""
        if self._state is _LAST_RESPONSE or not request.keep_alive:
            self._close()
            return
        self._state = _IDLE
        if self._pipelined:
            pipelined, self._pipelined = self._pipelined, b""
            self._read(pipelined, self._pipelined_from)
            if self._pipelined or self._state in _DISCARDING_INPUT:
                return
        elif self._reported_bytes:
            self._report_buffered(0)
        if self._request is None or (self._probe.is_half_closed and self._state is _READING_BODY):
            if self._probe.is_half_closed or (self._close_after_response and self._state is _IDLE):
                self._close()  # a client whose next head is arriving has not received `Connection: close`
                return
            self._limiter.mark_idle(self)
        self._resume_reading()

    def _refuse(self, error: RequestError) -> None:
        """Stop parsing, and respond to what has arrived."""
        self._pipelined = b""
        self._limiter.mark_busy(self)
        request = self._parser.request
        if request is None:
            self._write_refusal(error)
            self._linger()
        elif request.answered:  # the error is in the rest of its body
            self._linger()
        else:  # its head was valid, so the handler responds, with or without the body
            self._state = _LAST_RESPONSE
            request.body.fail(type(error))
            if self._request is None:
                self._start_handler(request)
            else:
                self._resume_reading()

    def _write_refusal(self, error: RequestError) -> None:
        peer = self._transport.get_extra_info("peername")
        response, headers = self._app.refuse(error, peer)
        self._transport.write(rendered(response, headers, close=True, with_body=True))

    def _close(self) -> None:
        """Close; linger if the client may still be sending."""
        if self._state in (_LINGERING, _CLOSED) or self._transport.is_closing():
            return
        if not self._probe.is_half_closed and (self._parser.in_unneeded_body or self._closing.has_unread()):
            self._linger()
        else:
            self._close_now()

    def _linger(self, *, is_refused: bool = False) -> None:
        self._state = _LINGERING
        self._report_buffered(0)
        self._closing.linger()
        if not is_refused:
            self._limiter.mark_lingering(self)

    def _close_now(self) -> None:
        self._state = _CLOSED
        self._report_buffered(0)
        self._closing.close()

    def _check_timeouts(self) -> None:
        """Close a connection that has been idle, or receiving one head, for too long."""
        if self._state in _DISCARDING_INPUT:
            return
        in_head = self._state is _READING_HEAD
        left_s = limit_s = self._timeouts.transfer_s if in_head else self._timeouts.keep_alive_s
        if self._request is None:  # otherwise the handler limits the time
            left_s = limit_s - self._timer.phase_s()
        if left_s > 0:
            self._timer.start(left_s, self._check_timeouts)
        elif in_head:
            self._refuse(RequestTimeout())
        else:
            self._close()

    def finish(self) -> bool:
        """Close an idle connection, and any other one after its response.

        Returns:
            False if a request has begun to arrive; call it again.
        """
        self._close_after_response = True
        if self._state in (_IDLE, _READING_HEAD):
            is_arriving = self._state is _READING_HEAD and self._timer.phase_s() < DRAIN_HEAD_S
            if is_arriving or self._closing.has_unread():
                return False
            self._close()
        return True

    def close_after_response(self) -> None:
        """Close after the next response, of which the client is informed by `Connection: close`."""
        self._close_after_response = True

    def evict(self) -> None:
        """Close in favour of another connection; the handler is not running."""
        if self._state is _LINGERING or self._transport.get_write_buffer_size():
            self.abort()  # the client has not read its last response
        else:
            self._close_now()

    def abort(self) -> None:
        """Close without sending anything else."""
        self._transport.abort()
