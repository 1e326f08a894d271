"""Our own load generator: one event loop, bare HTTP/1.1, and it can look into every answer."""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import uvloop

from loadtest.bench.figures import Sample, timed
from loadtest.bench.target import LoadError, Target

OnAnswer = Callable[[int, float, bytes], None]
"""Told the text's place, the seconds and the body of each answer."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def over_http(target: Target, texts: Sequence[str], connections: int, seconds: float) -> Sample:
    """A Load; see there."""
    latencies: list[float] = []
    begin = time.perf_counter()
    ask(
        target,
        texts,
        starts(len(texts), connections),
        lambda _place, latency, _body: latencies.append(latency),
        seconds,
    )
    return timed(latencies, time.perf_counter() - begin)


def starts(texts: int, connections: int) -> list[Iterator[int]]:
    """Endless walks through all texts, one a connection, each from another place."""
    return [
        (turn % texts for turn in itertools.count(number * texts // connections))
        for number in range(connections)
    ]


def ask(
    target: Target,
    texts: Sequence[str],
    walks: Sequence[Iterable[int]],
    on_answer: OnAnswer,
    seconds: float = math.inf,
) -> None:
    """Open a connection for each walk and ask the texts at its places, until it ends or the time is over.

    Raises:
        LoadError: an answer was not 200, or the server hung up.
    """
    requests = [target.request(text) for text in texts]
    try:
        uvloop.run(_ask(target, requests, walks, on_answer, time.perf_counter() + seconds))
    except OSError as error:
        raise LoadError(f"the server hung up: {error}") from error


async def _ask(
    target: Target,
    requests: Sequence[bytes],
    walks: Sequence[Iterable[int]],
    on_answer: OnAnswer,
    end: float,
) -> None:
    loop = asyncio.get_running_loop()
    connections = [_Connection(requests, iter(walk), on_answer, end, loop.create_future()) for walk in walks]
    try:
        await asyncio.gather(
            *(
                loop.create_connection(lambda made=connection: made, target.host, target.port)  # type: ignore[misc]
                for connection in connections
            )
        )
        await asyncio.gather(*(connection.done for connection in connections))
    finally:
        for connection in connections:
            connection.close()


class _Connection(asyncio.Protocol):
    """Asks, waits for the whole answer, asks again."""

    def __init__(
        self,
        requests: Sequence[bytes],
        walk: Iterator[int],
        on_answer: OnAnswer,
        end: float,
        done: asyncio.Future[None],
    ) -> None:
        self.done = done
        self._requests, self._walk, self._on_answer, self._end = requests, walk, on_answer, end
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A TCP connection is always writable; uvloop's own class does not say so.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, complete, body = self._received.partition(b"\r\n\r\n")
        if not complete:
            return
        length = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            self._fail(LoadError(f"the server answered {head.splitlines()[0].decode('latin-1')}"))
        elif len(body) >= int(length[1]):
            self._received = b""
            self._on_answer(self._place, time.perf_counter() - self._sent, body)
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(LoadError("the server closed a connection"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _next(self) -> None:
        self._sent = time.perf_counter()
        place = next(self._walk, None) if self._sent < self._end else None
        if place is None or self._transport is None:
            if not self.done.done():
                self.done.set_result(None)
            return
        self._place = place
        self._transport.write(self._requests[place])

    def _fail(self, error: LoadError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
