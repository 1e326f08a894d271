"""The framing rules by themselves, without llhttp."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.server.errors import InvalidRequest, UnsupportedTransferCoding
from gateway.server.framing import (
    EMPTY_LINE,
    MAX_HEAD_BYTES,
    ChunkOverhead,
    EmptyLineFinder,
    body_length,
    check_version_and_host,
)

LENGTH = (b"content-length", b"12")


def encoded(value: bytes) -> tuple[bytes, bytes]:
    return b"transfer-encoding", value


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([], 0),
        ([(b"host", b"x")], 0),
        ([LENGTH], 12),
        ([(b"content-length", b"007")], 7),
        ([encoded(b"chunked")], None),
        ([encoded(b" Chunked\t")], None),
    ],
)
def test_the_length_of_a_body(headers: list[tuple[bytes, bytes]], length: int | None) -> None:
    assert body_length(headers, "1.1") == length


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ([LENGTH, encoded(b"chunked")], "1.1"),
        ([encoded(b"chunked")], "1.0"),
        ([encoded(b"gzip")], "1.1"),
        ([encoded(b"chunked, gzip")], "1.1"),
        ([encoded(b"chunked"), encoded(b"chunked")], "1.1"),
        ([encoded(b"chunked,")], "1.1"),
        ([encoded(b"gzip,,chunked")], "1.1"),
        ([encoded(b"")], "1.1"),
        ([encoded(b"xchunked")], "1.1"),
    ],
)
def test_ambiguous_framing_is_refused(headers: list[tuple[bytes, bytes]], version: str) -> None:
    with pytest.raises(InvalidRequest):
        body_length(headers, version)


@pytest.mark.parametrize("headers", [[encoded(b"gzip, chunked")], [encoded(b"gzip"), encoded(b"chunked")]])
def test_a_coding_before_chunked_is_not_supported(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(UnsupportedTransferCoding):
        body_length(headers, "1.1")


@pytest.mark.parametrize(
    ("version", "hosts"), [("1.1", [b"x"]), ("1.1", [b""]), ("1.0", []), ("1.0", [b"[::1]:80"])]
)
def test_valid_hosts(version: str, hosts: list[bytes]) -> None:
    check_version_and_host(version, hosts)


@pytest.mark.parametrize(
    ("version", "hosts"),
    [
        ("1.1", []),
        ("1.1", [b"x", b"x"]),
        ("1.1", [b"a b"]),
        ("1.0", [b"x", b"y"]),
        ("0.9", [b"x"]),
        ("2.0", [b"x"]),
    ],
)
def test_invalid_versions_and_hosts(version: str, hosts: list[bytes]) -> None:
    with pytest.raises(InvalidRequest):
        check_version_and_host(version, hosts)


@given(st.lists(st.text(alphabet="\r\na", min_size=1, max_size=6), min_size=1, max_size=12))
def test_an_empty_line_is_found_however_it_is_segmented(texts: list[str]) -> None:
    pieces = [text.encode() for text in texts]
    finder, parsed = EmptyLineFinder(), 0
    for piece in pieces:
        end = finder.end(piece, 0)
        finder.advance(piece, 0, end)
        parsed += end
        if end < len(piece):
            break
    whole = b"".join(pieces)
    found = whole.find(EMPTY_LINE)
    # An empty line that ends where a piece ends is the end of that piece as well.
    assert found < 0 or whole[:parsed].find(EMPTY_LINE) in (found, -1)
    if parsed < len(whole):
        assert whole[:parsed].endswith(EMPTY_LINE)


def overhead_until_refused(content_every: int) -> int:
    """Parse a body with one byte of content in so many bytes; return the size at which it is refused."""
    overhead, size = ChunkOverhead(), 0
    while size < 10 * MAX_HEAD_BYTES:
        count = overhead.until_check
        if size // content_every != (size + count) // content_every:
            overhead.content()
        size += count
        try:
            overhead.parsed(count)
        except InvalidRequest:
            return size
    return size


def test_chunk_overhead_is_limited_between_bytes_of_content() -> None:
    assert MAX_HEAD_BYTES < overhead_until_refused(10**9) <= MAX_HEAD_BYTES + 32 * 1024
    assert overhead_until_refused(MAX_HEAD_BYTES // 2) >= 10 * MAX_HEAD_BYTES
