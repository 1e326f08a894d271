"""gRPC's unary calls over one HTTP/2 connection, inside the event loop that uses it.

``grpc.aio`` takes more CPU for a call than everything else that the gateway does for a lone text;
ARCHITECTURE.md has the measurement. This is the part of HTTP/2 (RFC 9113) and of gRPC's mapping onto it
(grpc/doc/PROTOCOL-HTTP2.md) that a client needs whose every call is one message there and one back:
no server push, no compression, no streams of messages.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import cast

import grpc

from gateway.triton.frames import (
    DEFAULT_WINDOW,
    FRAME_BYTES,
    LARGEST_STREAM,
    LARGEST_WINDOW,
    MAX_HEAD_BYTES,
    PREFACE,
    Blocks,
    Flag,
    Kind,
    ProtocolError,
    Reason,
    Setting,
    frame,
    number,
    settings,
    settings_of,
    short_header,
    unpadded,
)

QUIET_S = 30.0
"""A connection with calls on which nothing came for so long is asked whether it is alive."""
PING_TIMEOUT_S = 5.0
_TOP_UP_BYTES = 2**24
"""After so many received bytes the connection's window is filled up again."""
_LONGEST_TIMEOUT_MS = 99_999_999

_OF_RESET = {
    Reason.REFUSED_STREAM: grpc.StatusCode.UNAVAILABLE,
    Reason.CANCEL: grpc.StatusCode.CANCELLED,
    Reason.ENHANCE_YOUR_CALM: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_OF_HTTP = dict.fromkeys((b"429", b"502", b"503", b"504"), grpc.StatusCode.UNAVAILABLE)
"""What a proxy says that is no gRPC server (grpc/doc/http-grpc-status-mapping.md)."""
_CODES = {str(code.value[0]).encode(): code for code in grpc.StatusCode}


class CallFailed(Exception):
    """A call ended with another status than OK; the server's words are not kept."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code.name)
        self.code = code


class _Call:
    """One stream: what is still to be sent, what came, and the future of its answer."""

    __slots__ = ("answer", "headers", "received", "rest", "stream", "window")

    def __init__(self, stream: int, rest: bytes, window: int, answer: asyncio.Future[bytes]) -> None:
        self.stream = stream
        self.rest = rest
        self.window = window
        self.answer = answer
        self.received = b""
        self.headers: dict[bytes, bytes] = {}

    def fail(self, code: grpc.StatusCode) -> None:
        if not self.answer.done():
            self.answer.set_exception(CallFailed(code))

    def finish(self) -> None:
        """The server has ended the stream: find the status and the one message."""
        status = self.headers.get(b"grpc-status")
        if status is None:
            http = self.headers.get(b":status", b"200")
            self.fail(_OF_HTTP.get(http, grpc.StatusCode.UNKNOWN))
        elif status != b"0":
            self.fail(_CODES.get(status, grpc.StatusCode.UNKNOWN))
        elif len(self.received) < 5 or self.received[:5] != _prefix(len(self.received) - 5):
            self.fail(grpc.StatusCode.INTERNAL)
        elif not self.answer.done():
            self.answer.set_result(self.received[5:])


def _prefix(size: int) -> bytes:
    """Before every message: not compressed, its length."""
    return struct.pack(">BI", 0, size)


class Connection(asyncio.Protocol):
    """One connection; `call` may be used as long as `usable`.

    Args:
        max_message_bytes: largest message to take.
        changed: called when the connection becomes usable, stops being so, or has room again.
    """

    def __init__(self, max_message_bytes: int, changed: Callable[[], None]) -> None:
        self._max_message_bytes = max_message_bytes
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._blocks = Blocks()
        self._buffer = b""
        self._calls: dict[int, _Call] = {}
        self._blocked: dict[int, _Call] = {}
        """Calls whose message waits for the server to open a window."""
        self._next_stream = 1
        self._open_block: tuple[int, int, bytes] | None = None
        """Flags, stream and what came so far of a header block in several frames."""
        self._greeted = False
        self._leaving = False
        self._lost = False
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._frame_bytes = FRAME_BYTES
        self._max_streams = LARGEST_STREAM
        self._unreported = 0
        self._heard = 0.0
        self._look: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._takers = {
            Kind.DATA: self._take_data,
            Kind.HEADERS: self._take_head,
            Kind.RST_STREAM: self._take_reset,
            Kind.SETTINGS: self._take_settings,
            Kind.PUSH_PROMISE: self._take_push,
            Kind.PING: self._take_ping,
            Kind.GOAWAY: self._take_goaway,
            Kind.WINDOW_UPDATE: self._take_window,
            Kind.CONTINUATION: self._take_continuation,
        }

    @property
    def usable(self) -> bool:
        """The server has greeted and neither side is leaving."""
        return self._greeted and not self._leaving and not self._lost and self._next_stream < LARGEST_STREAM

    @property
    def has_room(self) -> bool:
        """One more call may begin now."""
        return self.usable and len(self._calls) < self._max_streams

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return len(self._calls)

    async def call(self, head: bytes, message: bytes, timeout_s: float) -> bytes:
        """Send one message and return the one that comes back.

        Args:
            head: the header block of the method, of `header_block`.
            message: the serialised request.
            timeout_s: seconds; they travel along as ``grpc-timeout``.

        Raises:
            CallFailed: the status is not OK, the connection was lost, or the time is over.
        """
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        answer: asyncio.Future[bytes] = self._loop.create_future()
        call = _Call(stream, _prefix(len(message)) + message, self._stream_window, answer)
        timeout = short_header(
            b"grpc-timeout", b"%dm" % min(max(1, int(timeout_s * 1000)), _LONGEST_TIMEOUT_MS)
        )
        if not self._calls:
            self._heard = self._loop.time()
        self._calls[stream] = call
        self._send(call, frame(Kind.HEADERS, Flag.END_HEADERS, stream, head + timeout))
        timer = self._loop.call_later(timeout_s, call.fail, grpc.StatusCode.DEADLINE_EXCEEDED)
        try:
            return await answer
        finally:
            timer.cancel()
            if self._calls.pop(stream, None) is not None:
                # Cancelled, or too late: the server need not go on.
                self._write(frame(Kind.RST_STREAM, 0, stream, number(Reason.CANCEL)))
            self._blocked.pop(stream, None)
            if self._leaving and not self._calls:
                self.abort()
            elif len(self._calls) + 1 == self._max_streams:
                self._changed()

    def leave(self) -> None:
        """Begin no more calls; close when those under way have ended."""
        self._leaving = True
        if not self._calls:
            self.abort()

    def abort(self) -> None:
        """Close now; calls under way fail with UNAVAILABLE."""
        if self._transport is not None:
            self._transport.abort()

    # --- the transport's side ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet: our settings, and a connection window that never is what limits."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        ours = settings(
            (
                (Setting.HEADER_TABLE_SIZE, 0),
                (Setting.ENABLE_PUSH, 0),
                (Setting.INITIAL_WINDOW_SIZE, LARGEST_WINDOW),
            )
        )
        opened = number(LARGEST_WINDOW - DEFAULT_WINDOW)
        self._write(PREFACE + frame(Kind.SETTINGS, 0, 0, ours) + frame(Kind.WINDOW_UPDATE, 0, 0, opened))
        self._look = self._loop.call_later(QUIET_S, self._look_after)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._lost = True
        if self._look is not None:
            self._look.cancel()
        calls, self._calls = tuple(self._calls.values()), {}
        for call in calls:
            call.fail(grpc.StatusCode.UNAVAILABLE)
        if not self.closed.done():
            self.closed.set_result(None)
        self._changed()

    def data_received(self, data: bytes) -> None:
        """Take whole frames, keep the rest."""
        self._heard = self._loop.time()
        data = self._buffer + data if self._buffer else data
        at, end = 0, len(data)
        try:
            while end - at >= 9:
                length = int.from_bytes(data[at : at + 3], "big")
                if length > FRAME_BYTES:
                    raise ProtocolError
                if end - at < 9 + length:
                    break
                stream = int.from_bytes(data[at + 5 : at + 9], "big") & LARGEST_STREAM
                self._take(data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + length])
                at += 9 + length
        except (ProtocolError, struct.error, IndexError):
            self._leaving = True
            self._write(frame(Kind.GOAWAY, 0, 0, struct.pack(">II", 0, Reason.PROTOCOL_ERROR)))
            self.abort()
            return
        self._buffer = data[at:]

    # --- what comes ---------------------------------------------------------------------------------

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        in_block = self._open_block is not None
        if in_block != (kind == Kind.CONTINUATION) or not (self._greeted or kind == Kind.SETTINGS):
            raise ProtocolError
        take = self._takers.get(kind)
        if take is not None:  # other types mean nothing to us, known or not
            take(flags, stream, payload)

    def _take_push(self, flags: int, stream: int, payload: bytes) -> None:
        raise ProtocolError  # we have said that we take none

    def _take_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if not flags & Flag.ACK:
            self._write(frame(Kind.PING, Flag.ACK, 0, payload))

    def _take_reset(self, flags: int, stream: int, payload: bytes) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            call.fail(_OF_RESET.get(int.from_bytes(payload, "big"), grpc.StatusCode.INTERNAL))

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._unreported += len(payload)
        if self._unreported >= _TOP_UP_BYTES:
            self._write(frame(Kind.WINDOW_UPDATE, 0, 0, number(self._unreported)))
            self._unreported = 0
        call = self._calls.get(stream)
        if call is None or call.answer.done():
            return  # nobody waits for it any more
        call.received += unpadded(flags & Flag.PADDED, payload)
        if len(call.received) > self._max_message_bytes + 5:
            call.fail(grpc.StatusCode.RESOURCE_EXHAUSTED)
        elif flags & Flag.END_STREAM:
            self._end(call)

    def _take_head(self, flags: int, stream: int, payload: bytes) -> None:
        block = unpadded(flags, payload)
        if flags & Flag.END_HEADERS:
            self._take_block(flags, stream, block)
        else:
            self._open_block = (flags, stream, block)

    def _take_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._open_block is None or self._open_block[1] != stream:
            raise ProtocolError
        first_flags, _, block = self._open_block
        block += payload
        if len(block) > MAX_HEAD_BYTES:
            raise ProtocolError
        self._open_block = None if flags & Flag.END_HEADERS else (first_flags, stream, block)
        if self._open_block is None:
            self._take_block(first_flags, stream, block)

    def _take_block(self, flags: int, stream: int, block: bytes) -> None:
        headers = self._blocks.decode(block)
        call = self._calls.get(stream)
        if call is None:
            return
        call.headers = {**call.headers, **headers} if call.headers else headers
        if flags & Flag.END_STREAM:
            self._end(call)

    def _end(self, call: _Call) -> None:
        if call.rest:
            # Answered before it was asked to the end: the rest is not wanted.
            self._write(frame(Kind.RST_STREAM, 0, call.stream, number(Reason.NO_ERROR)))
        del self._calls[call.stream]
        call.finish()

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & Flag.ACK:
            return
        for name, value in settings_of(payload):
            if name == Setting.MAX_CONCURRENT_STREAMS:
                self._max_streams = value
            elif name == Setting.MAX_FRAME_SIZE:
                self._frame_bytes = max(FRAME_BYTES, value)
            elif name == Setting.INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise ProtocolError
                grown, self._stream_window = value - self._stream_window, value
                for call in self._calls.values():
                    call.window += grown
        self._write(frame(Kind.SETTINGS, Flag.ACK, 0))
        self._greeted = True
        self._unblock()
        self._changed()

    def _take_goaway(self, flags: int, stream: int, payload: bytes) -> None:
        """Calls that the server has not looked at fail as UNAVAILABLE, so that they can go elsewhere."""
        last = int.from_bytes(payload[:4], "big") & LARGEST_STREAM
        self._leaving = True
        for unseen in [known for known in self._calls if known > last]:
            self._calls.pop(unseen).fail(grpc.StatusCode.UNAVAILABLE)
        if not self._calls:
            self.abort()
        self._changed()

    def _take_window(self, flags: int, stream: int, payload: bytes) -> None:
        more = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if stream == 0:
            self._window += more
        elif stream in self._calls:
            self._calls[stream].window += more
        self._unblock()

    # --- what goes ----------------------------------------------------------------------------------

    def _send(self, call: _Call, before: bytes = b"") -> None:
        """Send as much of the message as the windows let through, in one write."""
        parts = [before]
        while call.rest:
            size = min(len(call.rest), self._frame_bytes, self._window, call.window)
            if size <= 0:
                self._blocked[call.stream] = call
                break
            part, call.rest = call.rest[:size], call.rest[size:]
            self._window -= size
            call.window -= size
            parts.append(frame(Kind.DATA, 0 if call.rest else Flag.END_STREAM, call.stream, part))
        self._write(b"".join(parts))

    def _unblock(self) -> None:
        blocked, self._blocked = self._blocked, {}
        for call in blocked.values():
            if call.stream in self._calls:
                self._send(call)

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._lost:
            self._transport.write(data)

    def _look_after(self) -> None:
        """Find out whether a connection is dead on which calls wait and nothing comes."""
        now = self._loop.time()
        pause_s = QUIET_S
        if self._calls and now - self._heard >= QUIET_S + PING_TIMEOUT_S:
            self.abort()
            return
        if self._calls and now - self._heard >= QUIET_S:
            self._write(frame(Kind.PING, 0, 0, bytes(8)))
            pause_s = PING_TIMEOUT_S
        elif self._calls:
            pause_s = QUIET_S - (now - self._heard)
        self._look = self._loop.call_later(pause_s, self._look_after)
