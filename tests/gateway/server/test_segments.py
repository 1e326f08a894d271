"""However the network segments the bytes, the requests and the responses are the same."""

from __future__ import annotations

import asyncio
import random
import zlib

import pytest

from gateway.server.framing import MAX_HEAD_BYTES
from gateway.server.parser import MAX_HEADER_LINES
from tests.support.request_samples import broken, cut, pipeline
from tests.support.scripted_peer import outcome

PIPELINES, CUTS = 250, 24
"""Of each kind; 12,000 cuts in all."""

_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_GOOD = b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n"
BOUNDS = {
    "a head as large as may be": _HEAD + b"X: ".ljust(MAX_HEAD_BYTES - len(_HEAD) - 4, b"a") + b"\r\n\r\n",
    "a byte more": _HEAD + b"X: ".ljust(MAX_HEAD_BYTES - len(_HEAD) - 3, b"a") + b"\r\n\r\n",
    "as many lines as may be": _HEAD + b"a:\r\n" * (MAX_HEADER_LINES - 1) + b"\r\n",
    "a line more": _HEAD + b"a:\r\n" * MAX_HEADER_LINES + b"\r\n",
    "a long extension": _CHUNKED + b"1;" + b"a" * 60_000 + b"\r\nx\r\n0\r\n\r\n",
    "a longer one": _CHUNKED + b"1;" + b"a" * 100_000 + b"\r\nx\r\n0\r\n\r\n",
    "long trailers": _CHUNKED + b"1\r\nx\r\n0\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
    "longer ones": _CHUNKED + b"1\r\nx\r\n0\r\n" + b"a: b\r\n" * 16_000 + b"\r\n",
    "about as long as may be": _CHUNKED + b"1\r\nx\r\n0\r\nX: " + b"a" * 81_000 + b"\r\n\r\n",
}


async def _differences(sent: bytes, rng: random.Random, cuts: int) -> list[str]:
    whole = await outcome([sent])
    found = []
    for _ in range(cuts):
        pieces = cut(rng, sent)
        got = await outcome(pieces, waits=rng.random() < 0.7)
        if got != whole:
            found.append(f"{pieces!r}\n got      {got}\n expected {whole}")
    return found


@pytest.mark.parametrize("make", [pipeline, broken])
def test_any_cut_of_the_same_bytes_gives_the_same_requests_and_answers(make: object) -> None:
    async def all_of_them() -> list[str]:
        found = []
        for number in range(PIPELINES):
            rng = random.Random(number)
            found += await _differences(make(rng), rng, CUTS)  # type: ignore[operator]
        return found

    found = asyncio.run(all_of_them())
    assert not found, f"{len(found)} differences, the first:\n{found[0]}"


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_do_not_depend_on_the_cut(name: str) -> None:
    rng = random.Random(zlib.crc32(name.encode()))
    found = asyncio.run(_differences(BOUNDS[name] + _GOOD, rng, 30))
    assert not found, f"{len(found)} differences, the first:\n{found[0][-500:]}"
