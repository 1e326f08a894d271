"""Compressed request bodies."""

from __future__ import annotations

import zlib

from gateway.domain.errors import BodyTooLarge, MalformedBody

_GZIP = 16 + zlib.MAX_WBITS
"""The gzip format alone, with zlib's largest window."""


def is_gzip(body: bytes) -> bool:
    """Tell whether a body begins as gzip does; no JSON text can.

    ``content-encoding`` is not asked: ``@cloudflare/ai`` 1.1 sends ``application/json`` in it, and what
    forwards a Worker's request may decompress the body and leave the header.
    """
    return body.startswith(b"\x1f\x8b")


def gunzip(body: bytes, limit_bytes: int) -> bytes:
    """Decompress one gzip member, never into more than ``limit_bytes`` + 1 bytes of memory.

    Raises:
        BodyTooLarge: the content is longer than ``limit_bytes``.
        MalformedBody: not gzip, cut off, damaged, or followed by something else. A second member counts
            as that: a megabyte of tiny members would take minutes.
    """
    decompressor = zlib.decompressobj(_GZIP)
    try:
        content = decompressor.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise MalformedBody("the body is not valid gzip") from None
    if len(content) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    if not decompressor.eof or decompressor.unused_data:
        raise MalformedBody("the body is not valid gzip")
    return content
