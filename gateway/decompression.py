"""Bounded decompression of what clients send."""

from __future__ import annotations

import zlib
from enum import Enum

from gateway.domain.errors import BodyTooLarge, MalformedBody


class Coding(Enum):
    """A content coding; its value is zlib's window size for the format."""

    GZIP = 16 + zlib.MAX_WBITS
    DEFLATE = zlib.MAX_WBITS
    """The zlib format, which HTTP and gRPC call deflate."""


def decompress(content: bytes, coding: Coding, limit_bytes: int) -> bytes:
    """Decompress one stream, never into more than ``limit_bytes`` + 1 bytes of memory.

    Raises:
        BodyTooLarge: the content is longer than ``limit_bytes``.
        MalformedBody: not of this coding, cut off, damaged, or followed by something else. A second gzip
            member counts as that: a megabyte of tiny members would take minutes.
    """
    decompressor = zlib.decompressobj(coding.value)
    try:
        plain = decompressor.decompress(content, limit_bytes + 1)
    except zlib.error:
        raise MalformedBody(f"the body is not valid {coding.name.lower()}") from None
    if len(plain) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    if not decompressor.eof or decompressor.unused_data:
        raise MalformedBody(f"the body is not valid {coding.name.lower()}")
    return plain
