"""Two other parsers, h11 and that of aiohttp in Python, read the same bytes as ours (llhttp is in neither).

Where the gateway sees a request that another server behind or before it would see otherwise, a request
could be smuggled through.
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
        return found  # bytes that are no request, or come behind the last


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
        for at in range(len(sent)):  # or what came before an error would be lost
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
    """What the target asks for; the host in it is not looked at."""
    try:
        path, query = target_of(target.encode("latin-1"))
    except httptools.HttpParserInvalidURLError:
        return target
    return f"{path}?{query}" if query else path


async def seen_by_others(sent: bytes) -> list[list[Seen]]:
    others = [seen_by_h11(sent)]
    if b"upgrade:" not in sent.lower():  # aiohttp leaves HTTP there
        others.append(await seen_by_aiohttp(sent))
    return [[(method, _path_of(target), body) for method, target, body in seen] for seen in others]


def test_all_three_see_the_same_in_valid_pipelines() -> None:
    async def all_of_them() -> None:
        for number in range(VALID):
            sent = pipeline(random.Random(number), between=(b"",), trailers=TRAILERS)
            # The asterisk is for OPTIONS alone, and aiohttp insists on it.
            sent = sent.replace(b"/early", b"/other").replace(b" * ", b" /star ")
            ours = await seen_by_us(sent)
            for other in await seen_by_others(sent):
                assert ours == other, sent

    asyncio.run(all_of_them())


def test_what_others_see_otherwise_is_never_a_request_of_ours() -> None:
    """Each may refuse what the others take; as far as they go on, they must agree."""

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

    assert asyncio.run(all_of_them()) > BROKEN / 4  # the test looks at something
