"""A closed loop over HTTP: each connection asks again as soon as it has its answer."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import uvloop

from loadtest.bench.figures import Sample, timed
from loadtest.checks import Scores, scores_of
from loadtest.client import ClientConnection, LoadError, Target

OnAnswer = Callable[[int, float, bytes], None]
"""Called with the text's place, the latency in seconds and the body of each answer."""
Load = Callable[[Target, Sequence[str], int, float], Sample]
"""A load generator: asks ``texts`` in turn over so many connections for so many seconds, each connection
again as soon as it has its answer. Raises LoadError."""
_FAILED_TEXT = b'"success":false'
"""In the answer to several texts, which is a 200 even if one of them has none."""


def over_http(
    target: Target, texts: Sequence[str], connections: int, seconds: float, texts_each: int = 1
) -> Sample:
    """A Load; see there. ``texts_each`` texts are asked in one request.

    Raises:
        LoadError: an answer was not 200, one of several texts has no answer, or a connection was closed.
    """
    return uvloop.run(closed_loop(target, texts, connections, seconds, texts_each))


async def closed_loop(
    target: Target, texts: Sequence[str], connections: int, seconds: float, texts_each: int = 1
) -> Sample:
    """As `over_http`, in the running event loop."""
    latencies: list[float] = []
    requests = _requests(target, texts, texts_each)

    def on_answer(_place: int, latency: float, body: bytes) -> None:
        if _FAILED_TEXT in body:
            raise LoadError("one of several texts was not answered")
        latencies.append(latency)

    begin = time.perf_counter()
    await send(target, requests, starts(len(requests), connections), on_answer, seconds)
    return timed(latencies, time.perf_counter() - begin, texts_each)


def _requests(target: Target, texts: Sequence[str], texts_each: int) -> list[bytes]:
    if texts_each == 1:
        return [target.request(text) for text in texts]
    groups = (texts[start : start + texts_each] for start in range(0, len(texts), texts_each))
    return [
        target.request_of({"requests": [{"text": text} for text in group]})
        for group in groups
        if len(group) == texts_each
    ]


async def classify_sequentially(target: Target, texts: Sequence[str]) -> list[Scores]:
    """The scores of each text, asked one after the other on one connection.

    Raises:
        LoadError: an answer was not 200, or the server closed the connection.
    """
    found: list[Scores] = []
    places = range(len(texts))
    await ask(target, texts, [places], lambda _place, _latency, body: found.append(scores_of(body)))
    return found


def starts(texts: int, connections: int) -> list[Iterator[int]]:
    """Endless walks through all texts, one a connection, each from another place."""
    return [
        (turn % texts for turn in itertools.count(number * texts // connections))
        for number in range(connections)
    ]


async def ask(
    target: Target,
    texts: Sequence[str],
    walks: Sequence[Iterable[int]],
    on_answer: OnAnswer,
    seconds: float = math.inf,
) -> None:
    """Open a connection for each walk and ask the texts at its places, until it ends or the time is over.

    Raises:
        LoadError: an answer was not 200, or the server closed a connection.
    """
    await send(target, [target.request(text) for text in texts], walks, on_answer, seconds)


async def send(
    target: Target,
    requests: Sequence[bytes],
    walks: Sequence[Iterable[int]],
    on_answer: OnAnswer,
    seconds: float,
) -> None:
    """As `ask`, with whole requests in the place of texts."""
    end = time.perf_counter() + seconds

    async def follow(walk: Iterable[int]) -> None:
        connection = await ClientConnection.open(target)
        try:
            for place in walk:
                sent = time.perf_counter()
                if sent >= end:
                    return
                status, body = await connection.exchange(requests[place])
                if status != 200:
                    raise LoadError(f"the server answered {status}")
                on_answer(place, time.perf_counter() - sent, body)
        finally:
            connection.close()

    try:
        await asyncio.gather(*map(follow, walks))
    except OSError as error:
        raise LoadError(f"no answer: {error}") from error
