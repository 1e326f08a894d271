"""A client of `HttpConnection` without a network: a transport that tests drive."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.server.connection.http_connection import HttpConnection
from gateway.server.connection.timeouts import Timeouts
from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.errors import (
    InvalidRequest,
    PeerDisconnected,
    RequestError,
    RequestTimeout,
    ServerBusy,
    UnsupportedTransferCoding,
)
from gateway.server.message import Address, Header, HttpRequest, RequestHandler, Response
from tests.support.virtual_time import settle

KEEP_ALIVE_S, TRANSFER_S = 75.0, 10.0
TIMEOUTS = Timeouts(KEEP_ALIVE_S, TRANSFER_S)

_WRITE_HIGH_WATER, _WRITE_LOW_WATER = 64 * 1024, 16 * 1024

_STATUS: dict[type[RequestError], int] = {
    InvalidRequest: 400,
    RequestTimeout: 408,
    ServerBusy: 429,
    PeerDisconnected: 499,
    UnsupportedTransferCoding: 501,
}


@functools.cache
def _file_descriptor(*, readable: bool) -> int:
    """Return one that poll reports as readable, or not: it stands for that of a socket."""
    reading, writing = os.pipe()
    if readable:
        os.write(writing, b"x")
    return reading


class ScriptedPeer:
    """A client and its connection: `send`, `half_close`, `vanish` and `read` are what the client does.

    It is the connection's transport as well, and behaves as that of asyncio over a socket does.
    """

    def __init__(
        self,
        app: RequestHandler | None = None,
        limiter: ConnectionLimiter | None = None,
        timeouts: Timeouts = TIMEOUTS,
        *,
        tls: bool = False,
        reads: bool = True,
    ) -> None:
        self.received = b""
        """What the client has read."""
        self.was_reset = False
        """The server closed on input that it had not read, so that the kernel sent RST."""
        self.aborted = False
        """The server dropped what it had written."""
        self.half_closed = False
        """The server has closed its sending side."""
        self.closed = False
        self.paused = False
        """The server does not read."""
        self._tls = tls
        self._reads = reads
        self._unsent = b""
        self._writing_paused = False
        self._unread = b""
        self._fin = False
        self._gone = False
        self._so_error = 0
        self._lost = False
        self.connection = HttpConnection(
            app or Recorder(), ConnectionLimiter(1) if limiter is None else limiter, timeouts
        )
        self.connection.connection_made(cast(asyncio.Transport, self))

    # --- the client -----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes; they wait in the kernel while the server does not read."""
        if self.closed:
            self.was_reset = True
        else:
            self._unread += data
            self._deliver()

    def arrive(self, data: bytes) -> None:
        """Send bytes that are in the kernel for some iterations before the event loop reads them."""
        self._unread += data
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, loop.call_soon, self._deliver)

    def half_close(self) -> None:
        """Send FIN, and go on reading."""
        self._fin = True
        self._deliver()

    def vanish(self) -> None:
        """Send FIN, and reply to further output of the server with RST."""
        self._gone = True
        self.half_close()

    def reset(self) -> None:
        """Send RST, which the server's kernel has received, and its event loop not yet read."""
        self._so_error = errno.ECONNRESET

    def disconnect(self) -> None:
        """Break the connection."""
        self.closed = True
        self._lose()

    def read(self, count: int) -> None:
        """Read up to ``count`` bytes of what the server has written."""
        self.received += self._unsent[:count]
        self._unsent = self._unsent[count:]
        if self._writing_paused and len(self._unsent) <= _WRITE_LOW_WATER:
            self._writing_paused = False
            self.connection.resume_writing()
        if self.closed and not self._unsent:
            self._lose()

    @property
    def responses(self) -> list[bytes]:
        """Status and body of each final response that the client has read."""
        return responses_in(self.received)

    @property
    def is_ended(self) -> bool:
        """Whether the server sends nothing more."""
        return self.half_closed or self.closed

    def _deliver(self) -> None:
        if self._unread and not (self.paused or self.closed):
            data, self._unread = self._unread, b""
            self.connection.data_received(data)
        if self._fin and not (self._unread or self.paused or self.closed):
            self._fin = False
            if not self.connection.eof_received():
                self.close()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self.connection.connection_lost(None)

    # --- its transport ----------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: object = None) -> Any:
        return self if name == "socket" else default

    def getsockopt(self, *_: int) -> int:
        return self._so_error

    def fileno(self) -> int:
        return _file_descriptor(readable=bool(self._unread or self._fin or self._so_error))

    def write(self, data: bytes) -> None:
        assert not self.half_closed
        assert not self.closed
        if self._gone:
            self._so_error = errno.ECONNRESET
        elif self._reads:
            self.received += data
        else:
            self._unsent += data
            if len(self._unsent) > _WRITE_HIGH_WATER and not self._writing_paused:
                self._writing_paused = True
                self.connection.pause_writing()

    def can_write_eof(self) -> bool:
        return not self._tls

    def write_eof(self) -> None:
        if self._so_error:
            raise OSError(errno.ENOTCONN, "not connected")
        self.half_closed = True

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.was_reset = self.was_reset or bool(self._unread)
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._lose)

    def abort(self) -> None:
        self.closed = self.aborted = True
        self._unsent = b""
        asyncio.get_running_loop().call_soon(self._lose)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        if self._unread or self._fin:
            asyncio.get_running_loop().call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)


@dataclass
class Recorder:
    """An application that records its requests, with whole bodies; /early gets 401 without its body."""

    seen: list[tuple[object, ...]] = field(default_factory=list)

    async def __call__(self, request: HttpRequest) -> tuple[Response, Sequence[Header]]:
        asked = (request.method, request.raw_path, request.query_string, tuple(request.all_headers))
        if request.raw_path == "/early":
            self.seen.append((*asked, None))
            return Response(401, b"early"), []
        try:
            while not request.body.complete:
                await request.body.more()
        except RequestError as error:
            self.seen.append((*asked, type(error).__name__))
            return Response(_STATUS[type(error)], b"broken"), []
        self.seen.append((*asked, bytes(request.body.data)))
        return Response(200, b"%d" % len(request.body.data)), []

    def refuse(self, error: RequestError, peer: Address | None) -> tuple[Response, Sequence[Header]]:
        return Response(_STATUS[type(error)], type(error).__name__.encode()), []


class Held(Recorder):
    """An application that responds when `release` is set."""

    def __init__(self, response: Response | None = None) -> None:
        super().__init__()
        self.release = asyncio.Event()
        self.request: HttpRequest
        self.disconnected_at: float | None = None
        self._response = response or Response(200, b"held")

    async def __call__(self, request: HttpRequest) -> tuple[Response, Sequence[Header]]:
        self.request = request
        request.on_disconnect(self._disconnected)
        await self.release.wait()
        return self._response, []

    def _disconnected(self) -> None:
        self.disconnected_at = asyncio.get_running_loop().time()
        self.release.set()


@dataclass(frozen=True)
class Outcome:
    """What a client and the application observed of a connection."""

    seen: list[tuple[object, ...]]
    responses: list[bytes]
    closed: bool
    """The server closed before the client did."""


async def outcome(pieces: Sequence[bytes], *, waits: bool = True) -> Outcome:
    """Send ``pieces``, wait for the responses (after each piece if ``waits``), and close."""
    app = Recorder()
    peer = ScriptedPeer(app)

    async def settle_all() -> None:
        await settle()
        while peer.paused and not peer.closed:
            await asyncio.sleep(0)

    for piece in pieces:
        if waits or peer.paused:
            await settle_all()
        if peer.closed:
            break
        peer.send(piece)
    await settle_all()
    closed = peer.is_ended
    if not closed:
        peer.half_close()
    peer.disconnect()
    if peer.connection.task is not None:
        await peer.connection.task
    return Outcome(app.seen, peer.responses, closed)


def responses_in(written: bytes) -> list[bytes]:
    """Return status and body of each response except interim ones."""
    found = []
    for response in re.split(rb"(?=HTTP/1\.1 \d{3} )", written)[1:]:
        head, _, body = response.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 1"):
            found.append(head[9:12] + b" " + body)
    return found
