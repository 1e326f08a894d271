"""Unpacking request bodies."""

from __future__ import annotations

import zlib

from gateway.domain.errors import BodyTooLarge, MalformedBody

_MAGIC = b"\x1f\x8b"
_GZIP = 16 + zlib.MAX_WBITS


def gunzip(body: bytes, limit_bytes: int) -> bytes:
    """Unpack ``body`` if it is gzip, else return it as it is.

    The bytes decide, not the header: JSON cannot start with gzip's first byte, clients label plain JSON
    as encoded, and what stands between may have unpacked it and left the header on.

    Raises:
        BodyTooLarge: the content exceeds ``limit_bytes``; no more than that is ever unpacked.
        MalformedBody: damaged, cut off, or followed by something else.
    """
    if not body.startswith(_MAGIC):
        return body
    unpacker = zlib.decompressobj(_GZIP)
    try:
        content = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise MalformedBody("the body is not valid gzip") from None
    if len(content) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise MalformedBody("the body is not valid gzip")
    return content
