"""Compressed request bodies."""

from __future__ import annotations

import zlib

from gateway.domain.errors import BodyTooLarge, MalformedBody

_GZIP = 16 + zlib.MAX_WBITS
"""The gzip format alone, with zlib's largest window."""


def is_gzip(encodings: list[str]) -> bool:
    """Tell whether the values of ``content-encoding`` name gzip.

    Everything else is ignored: ``@cloudflare/ai`` 1.1 sends ``content-encoding: application/json`` with
    a plain body.
    """
    return bool(encodings) and encodings[-1].strip().lower() in {"gzip", "x-gzip"}


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
