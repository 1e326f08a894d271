"""Compressed bodies."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.request_body import gunzip, is_gzip, is_zlib, read_body
from gateway.decompression import Coding, decompress
from gateway.domain.errors import BodyTooLarge, MalformedBody
from gateway.server.message import HttpRequest

LIMIT = 1 << 20


@given(st.binary(max_size=1000), st.integers(0, 9))
def test_what_was_compressed_comes_back(content: bytes, level: int) -> None:
    assert gunzip(gzip.compress(content, level), LIMIT) == content


@given(st.binary(max_size=300))
def test_any_bytes_are_decompressed_or_refused_in_a_known_way(body: bytes) -> None:
    for damaged in (body, gzip.compress(b"x")[:-1] + body[:1], gzip.compress(b"x") + body + b"x"):
        with suppress(MalformedBody):
            gunzip(damaged, LIMIT)


@given(st.integers(0, 200), st.integers(1, 200))
def test_the_limit_is_on_what_comes_out(size: int, limit: int) -> None:
    body = gzip.compress(b"a" * size)
    if size > limit:
        with pytest.raises(BodyTooLarge):
            gunzip(body, limit)
    else:
        assert len(gunzip(body, limit)) == size


def test_a_zip_bomb_costs_neither_memory_nor_time() -> None:
    bomb = gzip.compress(b"\0" * (256 << 20))
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(BodyTooLarge):
        gunzip(bomb, LIMIT)
    assert time.perf_counter() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    tracemalloc.stop()


def test_a_second_member_zlib_and_raw_deflate_are_not_accepted() -> None:
    raw = zlib.compressobj(wbits=-15)
    for body in (
        gzip.compress(b"a") + gzip.compress(b"b"),
        zlib.compress(b"a"),
        raw.compress(b"a") + raw.flush(),
        b"",
        gzip.compress(b"a" * 1000)[:20],
    ):
        with pytest.raises(MalformedBody):
            gunzip(body, LIMIT)


def test_gzip_is_known_by_its_first_bytes() -> None:
    assert is_gzip(gzip.compress(b"a"))
    for other in (b"", b"\x1f", b'{"text":"a"}', b" \x1f\x8b"):
        assert not is_gzip(other)


@given(st.binary(max_size=1000), st.integers(0, 9))
def test_what_was_deflated_comes_back(content: bytes, level: int) -> None:
    assert decompress(zlib.compress(content, level), Coding.DEFLATE, LIMIT) == content


@given(st.binary(max_size=300))
def test_any_bytes_are_inflated_or_refused_in_a_known_way(body: bytes) -> None:
    for damaged in (body, zlib.compress(b"x")[:-1] + body[:1], zlib.compress(b"x") + body + b"x"):
        with suppress(MalformedBody):
            decompress(damaged, Coding.DEFLATE, LIMIT)


def test_a_deflate_bomb_costs_neither_memory_nor_time() -> None:
    bomb = zlib.compress(b"\0" * (256 << 20))
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(BodyTooLarge):
        decompress(bomb, Coding.DEFLATE, LIMIT)
    assert time.perf_counter() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    tracemalloc.stop()


def test_gzip_raw_deflate_and_what_follows_are_not_accepted_as_deflate() -> None:
    raw = zlib.compressobj(wbits=-15)
    whole = zlib.compress(b"a" * 1000)
    for body in (gzip.compress(b"a"), raw.compress(b"a") + raw.flush(), b"", whole[:-1], whole * 2):
        with pytest.raises(MalformedBody):
            decompress(body, Coding.DEFLATE, LIMIT)


def test_zlib_is_known_by_its_first_bytes() -> None:
    for level in range(10):
        assert is_zlib(zlib.compress(b"a", level))
    for other in (b"", b"\x78", b'{"text":"a"}', b"[]", b' {"a":1}', gzip.compress(b"a")):
        assert not is_zlib(other)


@pytest.mark.parametrize("announced", ["deflate", "Deflate", "gzip", None])
@pytest.mark.parametrize("deflate", [True, False])
async def test_deflate_is_decompressed_where_it_is_announced_and_asked_for(
    announced: str | None, deflate: bool
) -> None:
    headers = [] if announced is None else [(b"content-encoding", announced.encode())]
    for body, plain in ((zlib.compress(b"{}"), b"{}"), (gzip.compress(b"{}"), b"{}"), (b"{}", b"{}")):
        request = HttpRequest("POST", "/", headers=headers)
        request.body.append(body)
        request.body.finish()
        is_kept = is_zlib(body) and not (deflate and announced in ("deflate", "Deflate"))
        assert await read_body(request, LIMIT, deflate=deflate) == (body if is_kept else plain)
