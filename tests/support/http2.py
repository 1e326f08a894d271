"""HTTP/2 by hand: frames and header blocks exactly as a test wants them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 0x4

WINDOW = 65_535
"""Bytes of DATA that each side takes at first."""

Field = tuple[bytes, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a frame; ``length`` declares another length than the payload has."""
    declared = len(payload) if length is None else length
    return struct.pack(">I", declared)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _integer(value: int, prefix_bits: int, first: int) -> bytes:
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([first | value])
    encoded, value = bytearray([first | most]), value - most
    while value >= 128:
        encoded.append(value % 128 + 128)
        value //= 128
    return bytes(encoded) + bytes([value])


def header_block(fields: Sequence[Field]) -> bytes:
    """Encode fields as literals that are not indexed (RFC 7541, section 6.2.2)."""
    return b"".join(
        b"\0" + _integer(len(name), 7, 0) + name + _integer(len(value), 7, 0) + value
        for name, value in fields
    )


def request_fields(path: bytes, extra: Sequence[Field] = ()) -> list[Field]:
    """Return the fields of a gRPC call."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *extra,
    ]


def message(payload: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """Return a gRPC message; ``length`` declares another length than the payload has."""
    return struct.pack(">?I", compressed, len(payload) if length is None else length) + payload


@dataclass
class Http2Peer:
    """A connection on which a test writes what it wants; frames that come are kept."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    frames: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    """Type, flags, stream and payload."""
    closed: bool = False
    windows: dict[int, int] = field(default_factory=dict)
    """Bytes of DATA that the server takes now: of each stream, and of the connection as stream 0."""
    initial_window: int = WINDOW

    def call(self, stream: int, path: bytes, extra: Sequence[Field] = (), data: bytes | None = b"") -> None:
        """Open a stream with ``data``, which also ends it; None leaves it open without a message."""
        block = header_block(request_fields(path, extra))
        chunks = [block[at : at + 16000] for at in range(0, len(block), 16000)]
        for place, chunk in enumerate(chunks):
            kind = CONTINUATION if place else HEADERS
            self.writer.write(frame(kind, END_HEADERS if place == len(chunks) - 1 else 0, stream, chunk))
        if data is not None:
            self.data(stream, data, end=True)

    def data(self, stream: int, payload: bytes, *, end: bool = False) -> None:
        """Send DATA frames."""
        chunks = [payload[at : at + 16000] for at in range(0, len(payload), 16000)] or [b""]
        for chunk in chunks:
            self.writer.write(frame(DATA, END_STREAM if end and chunk is chunks[-1] else 0, stream, chunk))

    async def send(self, stream: int, payload: bytes, *, end: bool = True) -> bool:
        """Send DATA as fast as the server takes it; return whether it took all of it."""
        if end and not payload:
            self.data(stream, b"", end=True)
        while payload:
            room = min(self._window(0), self._window(stream))
            if self.closed or self.ended(stream):
                return False
            if room <= 0:
                await asyncio.sleep(0.001)
                continue
            chunk, payload = payload[: min(room, 16000)], payload[min(room, 16000) :]
            self.windows[0] -= len(chunk)
            self.windows[stream] -= len(chunk)
            self.writer.write(frame(DATA, END_STREAM if end and not payload else 0, stream, chunk))
        return True

    async def read(self) -> None:
        """Keep what comes; acknowledge settings and pings."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await self.reader.readexactly(9)
                length = int.from_bytes(head[:3], "big")
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF
                payload = await self.reader.readexactly(length)
                self.frames.append((kind, flags, stream, payload))
                if kind == WINDOW_UPDATE:
                    self.windows[stream] = self._window(stream) + int.from_bytes(payload, "big")
                if kind == SETTINGS:
                    self._change_windows(payload)
                if kind in (SETTINGS, PING) and not flags & ACK:
                    self.writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        self.closed = True

    def _change_windows(self, settings: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", settings):
            if name == INITIAL_WINDOW_SIZE:
                more, self.initial_window = value - self.initial_window, value
                for stream in self.windows.keys() - {0}:
                    self.windows[stream] += more

    def _window(self, stream: int) -> int:
        return self.windows.setdefault(stream, self.initial_window if stream else WINDOW)

    def ended(self, stream: int) -> bool:
        """Whether the server has ended a stream, in order or by a reset."""
        return any(
            number == stream and (kind == RST_STREAM or (kind in (HEADERS, DATA) and flags & END_STREAM))
            for kind, flags, number, _ in self.frames
        )

    def status(self, stream: int) -> int | None:
        """Return the status of a call; None before it has ended, or when it was reset."""
        for kind, flags, number, payload in self.frames:
            if number == stream and kind == HEADERS and flags & END_STREAM:
                return _grpc_status(payload)
        return None


def _grpc_status(block: bytes) -> int | None:
    """Find the status in a block that gRPC encodes: without Huffman codes, and the status not indexed."""
    name = b"\x0bgrpc-status"
    at = block.find(name)
    if at < 0:
        return None
    at += len(name)
    return int(block[at + 1 : at + 1 + block[at]])


@asynccontextmanager
async def http2_peer(
    port: int, *, settings: bytes = b"", preface: bytes = PREFACE, reads: bool = True
) -> AsyncIterator[Http2Peer]:
    """Connect; without ``reads`` the client never reads."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(preface + frame(SETTINGS, 0, 0, settings))
    peer = Http2Peer(reader, writer)
    reading = asyncio.create_task(peer.read()) if reads else None
    try:
        yield peer
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        writer.transport.abort()
