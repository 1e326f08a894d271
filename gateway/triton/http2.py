"""gRPC's unary calls over one HTTP/2 connection, inside the event loop that uses it.

``grpc.aio`` takes more CPU for a call than everything else that the gateway does for a lone text;
ARCHITECTURE.md has the measurement. This is the part of HTTP/2 (RFC 9113) and of gRPC's mapping onto it
(grpc/doc/PROTOCOL-HTTP2.md) that a client needs whose every call is one message there and one back:
no server push, no compression, no streams of messages.

A call that the server has and nobody waits for any more is not cancelled, and no deadline travels along: it
goes on, and what comes back is dropped. Triton 2.51 dies of an inference that is cancelled in the moment in
which it ends (ARCHITECTURE.md, "Coalescing"), and gRPC's deadlines cancel at the server, too.
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
    NO_TABLE,
    PREFACE,
    Blocks,
    Flag,
    Frames,
    Kind,
    ProtocolError,
    Reason,
    Setting,
    frame,
    number,
    settings,
    settings_of,
    unpadded,
)
from gateway.triton.status import CallFailed, of_headers, of_reset

QUIET_S = 30.0
"""A connection on which nothing came for so long since a call began is asked whether it is alive. Calls
that are over by then count too: a server may be gone without a word, and every call run out of time."""
PING_TIMEOUT_S = 5.0
_TOP_UP_BYTES = 2**24
"""After so many received bytes the connection's window is filled up again."""
_MOST_CALLS = 1024
"""On one connection, those included that nobody waits for: a server that is silent for good gets no more."""


class _Call:
    """One stream: what is to be sent and how much of it is, what came, and the future of its answer."""

    __slots__ = ("answer", "headers", "message", "parts", "received", "sent", "size", "stream", "window")

    def __init__(self, stream: int, message: bytes, window: int, answer: asyncio.Future[bytes]) -> None:
        self.stream = stream
        self.message = message
        """Nothing of it when it is sent: a call whose answer is lost stays for as long as its connection."""
        self.size = len(message)
        self.sent = 0
        self.window = window
        self.answer = answer
        self.parts: list[bytes] = []
        self.received = 0
        self.headers: dict[bytes, bytes] = {}

    def fail(self, failure: CallFailed) -> None:
        if not self.answer.done():
            self.answer.set_exception(failure)

    def finish(self) -> None:
        """The server has ended the stream: find the status and the one message."""
        failure = of_headers(self.headers)
        received = b"".join(self.parts)
        if failure is None and (len(received) < 5 or received[:5] != _prefix(len(received) - 5)):
            failure = CallFailed(grpc.StatusCode.INTERNAL, "no message")
        if failure is not None:
            self.fail(failure)
        elif not self.answer.done():
            self.answer.set_result(received[5:])


def _prefix(size: int) -> bytes:
    """Before every message: not compressed, its length."""
    return struct.pack(">BI", 0, size)


class Connection(asyncio.Protocol):
    """One connection; `call` may be used as long as `usable`.

    Args:
        max_message_bytes: largest message to take.
        changed: called when the connection becomes usable or stops being so, and when the server has
            changed its settings.
    """

    def __init__(self, max_message_bytes: int, changed: Callable[[], None]) -> None:
        self._max_message_bytes = max_message_bytes
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._blocks = Blocks()
        self._frames = Frames()
        self._calls: dict[int, _Call] = {}
        self._blocked: dict[int, _Call] = {}
        """Calls whose message waits for the server to open a window."""
        self._next_stream = 1
        self._greeted = False
        self._leaving = False
        self._lost = False
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._frame_bytes = FRAME_BYTES
        self._max_streams = LARGEST_STREAM
        self._unreported = 0
        self._waits_since: float | None = None
        """When a call began, or something came within one, and nothing has come ever since."""
        self._asked = False
        """A PING is not answered yet."""
        self._look: asyncio.TimerHandle | None = None
        self.end = "its end"  # why, for the log
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._takers = {
            Kind.DATA: self._take_data,
            Kind.HEADERS: self._take_head,
            Kind.RST_STREAM: self._take_reset,
            Kind.SETTINGS: self._take_settings,
            Kind.PING: self._take_ping,
            Kind.GOAWAY: self._take_goaway,
            Kind.WINDOW_UPDATE: self._take_window,
        }

    @property
    def usable(self) -> bool:
        """The server has greeted and neither side is leaving."""
        return self._greeted and not self._leaving and not self._lost

    @property
    def has_room(self) -> bool:
        """One more call may begin now."""
        return self.usable and len(self._calls) < min(self._max_streams, _MOST_CALLS)

    @property
    def calls(self) -> int:
        """How many calls are under way, those included that nobody waits for any more."""
        return len(self._calls)

    async def call(self, head: bytes, message: bytes, timeout_s: float) -> bytes:
        """Send one message and return the one that comes back.

        Args:
            head: the header block of the method, of `header_block`.
            message: the serialised request.
            timeout_s: how long to wait; the server is not told.

        Raises:
            CallFailed: the status is not OK, the connection was lost, or the time is over.
        """
        if not self.usable:
            raise CallFailed(grpc.StatusCode.UNAVAILABLE)
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        answer: asyncio.Future[bytes] = self._loop.create_future()
        call = _Call(stream, _prefix(len(message)) + message, self._stream_window, answer)
        if self._waits_since is None:
            self._waits_since = self._loop.time()
        self._calls[stream] = call
        block = NO_TABLE + head if stream == 1 else head
        self._send(call, frame(Kind.HEADERS, Flag.END_HEADERS, stream, block))
        if self._next_stream > LARGEST_STREAM:
            self.leave()  # there are no more numbers for calls
            self._changed()
        late = CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time")
        timer = self._loop.call_later(timeout_s, call.fail, late)
        try:
            return await answer
        finally:
            timer.cancel()
            if stream in self._blocked:
                # The server does not have the whole message, so it has not begun: take the call back.
                self._write(frame(Kind.RST_STREAM, 0, stream, number(Reason.CANCEL)))
                self._remove(call)

    def leave(self) -> None:
        """Begin no more calls; close when those under way have ended."""
        self._leaving = True
        if not self._calls:
            self.abort()

    def abort(self) -> None:
        """Close now; calls under way fail with UNAVAILABLE."""
        self._leaving = True
        if self._transport is not None:
            self._transport.abort()

    # --- the transport's side ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet: our settings, and a connection window that never is what limits."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        if self._leaving:
            self.abort()
            return
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
        calls, self._calls, self._blocked = tuple(self._calls.values()), {}, {}
        self.end += f", with {len(calls)} calls under way" if calls else ""
        for call in calls:
            call.fail(CallFailed(grpc.StatusCode.UNAVAILABLE, "the connection was lost"))
        if not self.closed.done():
            self.closed.set_result(None)
        self._changed()

    def data_received(self, data: bytes) -> None:
        """Take the frames that are complete."""
        try:
            for kind, flags, stream, payload in self._frames.cut(data):
                if kind == Kind.PUSH_PROMISE or not (self._greeted or kind == Kind.SETTINGS):
                    raise ProtocolError  # we have said that we take no pushes
                take = self._takers.get(kind)
                if take is not None:  # other types mean nothing to us, known or not
                    take(flags, stream, payload)
        except ProtocolError:
            self.end = "a breach of HTTP/2"
            self._write(frame(Kind.GOAWAY, 0, 0, struct.pack(">II", 0, Reason.PROTOCOL_ERROR)))
            self.abort()
        self._asked = False
        self._waits_since = self._loop.time() if self._calls else None

    # --- what comes ---------------------------------------------------------------------------------

    def _take_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if not flags & Flag.ACK:
            self._write(frame(Kind.PING, Flag.ACK, 0, payload))

    def _take_reset(self, flags: int, stream: int, payload: bytes) -> None:
        call = self._calls.get(stream)
        if call is not None:
            self._remove(call)
            call.fail(of_reset(int.from_bytes(payload, "big"), leaving=self._leaving))

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._unreported += len(payload)
        if self._unreported >= _TOP_UP_BYTES:
            self._write(frame(Kind.WINDOW_UPDATE, 0, 0, number(self._unreported)))
            self._unreported = 0
        part = unpadded(flags & Flag.PADDED, payload)
        call = self._calls.get(stream)
        if call is None:
            return
        if not call.answer.done():  # somebody waits for it
            call.parts.append(part)
            call.received += len(part)
            if call.received > self._max_message_bytes + 5:
                call.parts.clear()
                call.fail(CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED))
        if flags & Flag.END_STREAM:
            self._end(call)

    def _take_head(self, flags: int, stream: int, block: bytes) -> None:
        headers = self._blocks.decode(block)
        call = self._calls.get(stream)
        if call is None:
            return
        call.headers = {**call.headers, **headers} if call.headers else headers
        if flags & Flag.END_STREAM:
            self._end(call)

    def _end(self, call: _Call) -> None:
        if call.sent < call.size:
            # Answered before it was asked to the end: the rest is not wanted.
            self._write(frame(Kind.RST_STREAM, 0, call.stream, number(Reason.NO_ERROR)))
        self._remove(call)
        call.finish()

    def _remove(self, call: _Call) -> None:
        """A call is over at the server."""
        was_full = not self.has_room
        del self._calls[call.stream]
        self._blocked.pop(call.stream, None)
        if self._leaving and not self._calls:
            self.abort()
        elif was_full:
            self._changed()

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & Flag.ACK:
            return
        for name, value in settings_of(payload):
            if name == Setting.MAX_CONCURRENT_STREAMS:
                self._max_streams = value
            elif name == Setting.MAX_FRAME_SIZE:
                self._frame_bytes = value
            elif name == Setting.INITIAL_WINDOW_SIZE:
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
        self.end = "the server's leave"
        for unseen in [known for known in self._calls if known > last]:
            self._blocked.pop(unseen, None)
            self._calls.pop(unseen).fail(CallFailed(grpc.StatusCode.UNAVAILABLE, "the server leaves"))
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
        end = call.size
        while call.sent < end:
            size = min(end - call.sent, self._frame_bytes, self._window, call.window)
            if size <= 0:
                self._blocked[call.stream] = call
                break
            part = call.message[call.sent : call.sent + size]
            call.sent += size
            self._window -= size
            call.window -= size
            parts.append(frame(Kind.DATA, Flag.END_STREAM if call.sent == end else 0, call.stream, part))
        if call.sent == end:
            call.message = b""
        self._write(b"".join(parts))

    def _unblock(self) -> None:
        blocked, self._blocked = self._blocked, {}
        for call in blocked.values():
            self._send(call)

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._lost:
            self._transport.write(data)

    def _look_after(self) -> None:
        """Find out whether a connection is dead on which something was asked and nothing comes."""
        quiet_s = 0.0 if self._waits_since is None else self._loop.time() - self._waits_since
        if not self.has_room and all(call.answer.done() for call in self._calls.values()):
            return self.abort()  # they have had their time, and hold what others need
        if quiet_s < QUIET_S:
            pause_s = QUIET_S - quiet_s
        elif not self._asked:
            self._asked, pause_s = True, PING_TIMEOUT_S
            self._write(frame(Kind.PING, 0, 0, bytes(8)))
        else:
            self.end = "silence"
            return self.abort()
        self._look = self._loop.call_later(pause_s, self._look_after)
