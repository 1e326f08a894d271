"""Differential tests against h11 and aiohttp's pure-Python parser, neither of which uses llhttp.

A request that another server in the chain parses differently could be smuggled past it (RFC 9112, 11.2).
"""

from __future__ import annotations

import asyncio
import random
from unittest import mock

import h11
import httptools
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy

from gateway.server.wire import target_of
from tests.support.request_samples import TRAILERS, broken, pipeline
from tests.support.scripted_peer import outcome

VALID, BROKEN = 400, 2000

Seen = tuple[str, str, bytes]
"""Method, target, body."""


def seen_by_h11(sent: bytes) -> list[Seen]:
    found: list[Seen] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
    connection.receive_data(sent)
    connection.receive_data(b"")
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head, body = event, bytearray()
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append((head.method.decode(), head.target.decode("latin-1"), bytes(body)))
                answer = h11.Response(status_code=200, headers=[("Content-Length", "0")])
                connection.send(answer)
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
            else:
                return found
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        return found  # malformed, or behind the last request


async def seen_by_aiohttp(sent: bytes) -> list[Seen]:
    parser = HttpRequestParserPy(
        mock.Mock(_reading_paused=False),
        asyncio.get_running_loop(),
        2**20,
        max_line_size=2**20,
        max_field_size=2**20,
    )
    found = []
    messages = []
    try:
        for at in range(len(sent)):  # in one piece, it would drop the requests before an error
            more, upgraded, _ = parser.feed_data(sent[at : at + 1])
            messages += more
            if upgraded:
                break
    except HttpProcessingError:
        pass
    for head, payload in messages:
        if not payload.is_eof() or payload.exception() is not None:
            break
        found.append((head.method, head.path, await payload.read()))
        if head.should_close:
            break
    return found


async def seen_by_us(sent: bytes) -> list[Seen]:
    """The complete requests, with targets as paths."""
    found = []
    for method, path, query, _, body in (await outcome([sent])).seen:
        if isinstance(body, bytes):
            found.append((str(method), f"{path}?{query}" if query else str(path), body))
    return found


def _path_of(target: str) -> str:
    """Path and query of the target, without its host."""
    try:
        path, query = target_of(target.encode("latin-1"))
    except httptools.HttpParserInvalidURLError:
        return target
    return f"{path}?{query}" if query else path


async def seen_by_others(sent: bytes) -> list[list[Seen]]:
    others = [seen_by_h11(sent)]
    if b"upgrade:" not in sent.lower():  # aiohttp switches protocols there
        others.append(await seen_by_aiohttp(sent))
    return [[(method, _path_of(target), body) for method, target, body in seen] for seen in others]


def test_all_three_parse_valid_pipelines_alike() -> None:
    async def all_of_them() -> None:
        for number in range(VALID):
            sent = pipeline(random.Random(number), between=(b"",), trailers=TRAILERS)
            # aiohttp accepts the asterisk form with OPTIONS only.
            sent = sent.replace(b"/early", b"/other").replace(b" * ", b" /star ")
            ours = await seen_by_us(sent)
            for other in await seen_by_others(sent):
                assert ours == other, sent

    asyncio.run(all_of_them())


def test_a_request_that_another_parser_parses_differently_is_refused() -> None:
    """One may refuse what another accepts; up to there they have to agree."""

    async def all_of_them() -> int:
        accepted = 0
        for number in range(BROKEN):
            sent = broken(random.Random(number)).replace(b"/early", b"/other")
            ours = await seen_by_us(sent)
            accepted += len(ours)
            for other in await seen_by_others(sent):
                both = min(len(ours), len(other))
                assert ours[:both] == other[:both], sent
        return accepted

    assert asyncio.run(all_of_them()) > BROKEN / 4  # otherwise there was little to compare
