"""Frames of HTTP/2 and header blocks, as bytes: RFC 9113 (section 4.1) and RFC 7541.

HPACK is the ``hpack`` package's. Since neither side keeps a dynamic table (SETTINGS_HEADER_TABLE_SIZE is
0), equal blocks mean the same: they are decoded once, and put together from parts.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence

import hpack

# At debug it writes down headers, and with them what a server says of somebody's text.
logging.getLogger("hpack").setLevel(logging.WARNING)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES = 16_384
"""Largest frame that we take, and send unless the server takes more: HTTP/2's default."""
DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1
LARGEST_STREAM = 2**31 - 1
MAX_HEAD_BYTES = 64 * 1024
_KEPT_BLOCKS = 256
_KEPT_BYTES = 512
"""Blocks longer than this are not remembered: they carry words of the server, new ones each time."""

Header = tuple[bytes, bytes]


class Kind:
    """Types of frames (RFC 9113, section 6)."""

    DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
    PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)


class Flag:
    """Flags of frames; one bit means END_STREAM or ACK, depending on the type."""

    END_STREAM = ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting:
    """Parameters of a SETTINGS frame."""

    HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)


class Reason:
    """Codes of RST_STREAM and GOAWAY (RFC 9113, section 7)."""

    NO_ERROR, PROTOCOL_ERROR = 0x0, 0x1
    REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0x7, 0x8, 0xB


_SIZES = {Kind.RST_STREAM: 4, Kind.PING: 8, Kind.WINDOW_UPDATE: 4}
_LARGEST_FRAME_SETTING = 2**24 - 1

NO_TABLE = b"\x20"
"""Begins our first header block: we keep no table (RFC 7541, section 4.2), whatever the server allows."""


class ProtocolError(Exception):
    """The peer does not speak HTTP/2 as agreed."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame: 24 bits of length, type, flags, 31 bits of stream, payload."""
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def number(value: int) -> bytes:
    """Return the 32 bits that RST_STREAM and WINDOW_UPDATE carry."""
    return struct.pack(">I", value)


def settings(values: Sequence[tuple[int, int]]) -> bytes:
    """Return the payload of a SETTINGS frame."""
    return b"".join(struct.pack(">HI", name, value) for name, value in values)


def settings_of(payload: bytes) -> Iterator[tuple[int, int]]:
    """Read the payload of a SETTINGS frame.

    Raises:
        ProtocolError: it is none, or a value is out of range.
    """
    if len(payload) % 6:
        raise ProtocolError
    for name, value in struct.iter_unpack(">HI", payload):
        if name == Setting.INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ProtocolError
        if name == Setting.MAX_FRAME_SIZE and not FRAME_BYTES <= value <= _LARGEST_FRAME_SETTING:
            raise ProtocolError
        yield name, value


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return the payload of a DATA or HEADERS frame without padding and priority."""
    first, last = 0, len(payload)
    if flags & Flag.PADDED:
        first, last = 1, last - payload[0] if payload else 0
    if flags & Flag.PRIORITY:
        first += 5
    if first > last:
        raise ProtocolError
    return payload[first:last]


def header_block(headers: Sequence[Header]) -> bytes:
    """Encode headers without any table, so that blocks can be put together from parts."""
    never = [hpack.NeverIndexedHeaderTuple(*header) for header in headers]
    return hpack.Encoder().encode(never, huffman=False)


class Frames:
    """Cuts what comes from the peer into frames."""

    def __init__(self) -> None:
        """Start at the beginning of a connection."""
        self._buffer = b""
        self._open: tuple[int, int, bytes] | None = None
        """Flags, stream and what came so far of a header block in several frames."""

    def cut(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Return type, flags, stream and payload of every frame that is complete, and keep the rest.

        A header block comes as one HEADERS frame, however many it was in, without padding and priority.

        Raises:
            ProtocolError: on a frame that must not be.
        """
        data = self._buffer + data if self._buffer else data
        at, end = 0, len(data)
        while end - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > FRAME_BYTES:
                raise ProtocolError
            if end - at < 9 + length:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9], "big") & LARGEST_STREAM
            payload = data[at + 9 : at + 9 + length]
            at += 9 + length
            if _SIZES.get(kind, length) != length:
                raise ProtocolError
            if self._open is not None or kind in (Kind.HEADERS, Kind.CONTINUATION):
                block = self._joined(kind, flags, stream, payload)
                if block is not None:
                    yield Kind.HEADERS, block[0], stream, block[1]
            else:
                yield kind, flags, stream, payload
        self._buffer = data[at:]

    def _joined(self, kind: int, flags: int, stream: int, payload: bytes) -> tuple[int, bytes] | None:
        """Return the flags and the block when it is complete; no other frame may come within one."""
        if (kind == Kind.CONTINUATION) != (self._open is not None):
            raise ProtocolError
        if self._open is None:
            first, block = flags, unpadded(flags, payload)
        else:
            first, opened, block = self._open
            block += payload
            if opened != stream or len(block) > MAX_HEAD_BYTES:
                raise ProtocolError
        if flags & Flag.END_HEADERS:
            self._open = None
            return first, block
        self._open = (first, stream, block)
        return None


class Blocks:
    """Decodes header blocks; what came before is remembered, since no block depends on another."""

    def __init__(self) -> None:
        """Start without a table: what a server adds to it all the same is gone, and an index of it fails."""
        self._known: dict[bytes, dict[bytes, bytes]] = {}
        self._decoder = hpack.Decoder(max_header_list_size=MAX_HEAD_BYTES)
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0

    def decode(self, block: bytes) -> dict[bytes, bytes]:
        """Return the headers; of repeated ones, the last.

        Raises:
            ProtocolError: it is no header block, or needs a table.
        """
        found = self._known.get(block)
        if found is None:
            try:
                found = {bytes(name): bytes(value) for name, value in self._decoder.decode(block, raw=True)}
            except hpack.HPACKError as exc:
                raise ProtocolError from exc
            if len(block) <= _KEPT_BYTES:
                if len(self._known) >= _KEPT_BLOCKS:
                    self._known.clear()
                self._known[block] = found
        return found
