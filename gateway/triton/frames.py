"""Frames of HTTP/2 and header blocks, as bytes: RFC 9113 (section 4.1) and RFC 7541.

HPACK is the ``hpack`` package's. Since neither side keeps a dynamic table (SETTINGS_HEADER_TABLE_SIZE is
0), equal blocks mean the same: they are decoded once, and put together from parts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES = 16_384
"""Largest frame that we take, and send unless the server takes more: HTTP/2's default."""
DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1
LARGEST_STREAM = 2**31 - 1
MAX_HEAD_BYTES = 64 * 1024
_KEPT_BLOCKS = 256

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
    """Read the payload of a SETTINGS frame."""
    if len(payload) % 6:
        raise ProtocolError
    return struct.iter_unpack(">HI", payload)


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return the payload of a DATA or HEADERS frame without padding and priority."""
    first, last = 0, len(payload)
    if flags & Flag.PADDED:
        first, last = 1, last - payload[0]
    if flags & Flag.PRIORITY:
        first += 5
    if first > last:
        raise ProtocolError
    return payload[first:last]


def header_block(headers: Sequence[Header]) -> bytes:
    """Encode headers without any table, so that blocks can be put together from parts."""
    never = [hpack.NeverIndexedHeaderTuple(*header) for header in headers]
    return hpack.Encoder().encode(never, huffman=False)


def short_header(name: bytes, value: bytes) -> bytes:
    """Encode a header of its own value in each call: name and value shorter than 127 bytes (6.2.3)."""
    return b"\x10%c%b%c%b" % (len(name), name, len(value), value)


class Blocks:
    """Decodes header blocks; what came before is remembered, since no block depends on another."""

    def __init__(self) -> None:
        """Start without a table."""
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
            if len(self._known) >= _KEPT_BLOCKS:
                self._known.clear()
            self._known[block] = found
        return found
