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


def over_http(target: Target, texts: Sequence[str], connections: int, seconds: float) -> Sample:
    """A Load; see there."""
    return uvloop.run(closed_loop(target, texts, connections, seconds))


async def closed_loop(target: Target, texts: Sequence[str], connections: int, seconds: float) -> Sample:
    """As `over_http`, in the running event loop."""
    latencies: list[float] = []
    begin = time.perf_counter()
    await ask(
        target,
        texts,
        starts(len(texts), connections),
        lambda _place, latency, _body: latencies.append(latency),
        seconds,
    )
    return timed(latencies, time.perf_counter() - begin)


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
    requests = [target.request(text) for text in texts]
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
