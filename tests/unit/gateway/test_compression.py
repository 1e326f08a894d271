"""Unpacking bodies, within the limit."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import BodyTooLarge, MalformedBody
from gateway.http.compression import gunzip


@given(st.binary(max_size=200))
def test_what_was_packed_comes_back(content: bytes) -> None:
    assert gunzip(gzip.compress(content), 200) == content


@given(st.text(max_size=50))
def test_text_that_is_not_packed_stays_as_it_is(text: str) -> None:
    assert gunzip(text.encode(), 1) == text.encode()


def test_the_limit_is_on_the_content_and_exact() -> None:
    assert gunzip(gzip.compress(b"x" * 100), 100) == b"x" * 100
    with pytest.raises(BodyTooLarge):
        gunzip(gzip.compress(b"x" * 101), 100)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            gunzip(bomb, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


GOOD = gzip.compress(b'{"text":"a"}')


@pytest.mark.parametrize(
    "body",
    [
        GOOD[:-1],
        GOOD[:12],
        GOOD[:2],
        GOOD + b"x",
        GOOD + GOOD,
        GOOD[:-5] + b"\0" + GOOD[-4:],
        b"\x1f\x8b\xff",
    ],
    ids=["end", "head", "magic", "trailing", "twice", "checksum", "method"],
)
def test_damaged_gzip_is_a_malformed_body(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="the body is not valid gzip"):
        gunzip(body, 1000)


def test_zlib_without_the_gzip_header_is_not_taken_for_it() -> None:
    body = zlib.compress(b"x")
    assert gunzip(body, 1000) is body
