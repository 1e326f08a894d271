"""A load of single texts on running gateways that keeps book of every request.

Open loop: requests leave at a fixed rate, whatever became of those before, so a server that hangs is
not asked less. One that takes long opens another connection; the others are used again.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from loadtest import client
from loadtest.checks import Scores, difference, scores_of
from loadtest.client import ClientConnection
from loadtest.closed_loop import classify_sequentially

TOLERANCE = 1e-6
"""Scores beside neighbours differ from those alone by less; ten times as much as was ever measured."""
NO_ANSWER = 0
"""The status of a request whose connection broke or was refused."""
HUNG = -1
"""The status of a request without an answer long after its deadline."""


@dataclass(frozen=True)
class Target(client.Target):
    """A gateway and how to ask it.

    deadline_s: the gateway's own; a request without an answer ``grace_s`` later has hung.
    """

    deadline_s: float = 10.0
    grace_s: float = 2.0


@dataclass(frozen=True)
class Outcome:
    """What became of one request."""

    at_s: float
    """When it left, in seconds since the load began."""
    latency_s: float
    status: int
    """HTTP status, NO_ANSWER or HUNG."""
    code: int = 0
    """The error code of the envelope."""
    right: bool = False
    """A 200 with the scores of the reference, or a refusal in the contract's envelope."""
    gateways: tuple[int, ...] = ()
    """Those of a fleet that were asked: all but the last refused, broke the connection or were not ready."""

    @property
    def answered_at_s(self) -> float:
        """When its answer came, in seconds since the load began."""
        return self.at_s + self.latency_s


@dataclass
class Book:
    """All requests of a load so far."""

    began: float
    clock: Callable[[], float]
    outcomes: list[Outcome] = field(default_factory=list)

    def now_s(self) -> float:
        """Seconds since the load began."""
        return self.clock() - self.began

    def statuses(self) -> Counter[int]:
        """How many requests ended with which status."""
        return Counter(outcome.status for outcome in self.outcomes)

    def wrong(self) -> list[Outcome]:
        """Answers that are neither right nor a proper refusal; hung and broken requests too."""
        return [outcome for outcome in self.outcomes if not outcome.right]

    def good(self) -> list[Outcome]:
        """Answers with the scores of the reference."""
        return [outcome for outcome in self.outcomes if outcome.status == 200 and outcome.right]

    def lost(self) -> list[Outcome]:
        """Requests without such an answer."""
        return [outcome for outcome in self.outcomes if not (outcome.status == 200 and outcome.right)]

    def resent(self) -> list[Outcome]:
        """Requests that were sent to more than one gateway."""
        return [outcome for outcome in self.outcomes if len(outcome.gateways) > 1]

    def refused(self) -> list[Outcome]:
        """Requests with another answer than 200."""
        return [outcome for outcome in self.outcomes if outcome.status > 0 and outcome.status != 200]

    def good_again_s(self, after_s: float) -> float:
        """When the first request that left after ``after_s`` had been answered rightly; else infinity."""
        return min((good.answered_at_s for good in self.good() if good.at_s >= after_s), default=math.inf)


class Connections:
    """Connections to one gateway: a request uses an idle one, or opens another."""

    def __init__(self, target: client.Target) -> None:
        self._target = target
        self._idle: list[ClientConnection] = []

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send ``request``; return status and body. Nothing is sent a second time.

        Raises:
            OSError: the connection was refused, or ended before the whole answer had come.
        """
        while self._idle and not self._idle[-1].reusable:
            self._idle.pop()
        connection = self._idle.pop() if self._idle else await ClientConnection.open(self._target)
        try:
            return await connection.exchange(request)
        finally:
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()


def is_refusal(body: bytes) -> bool:
    """Whether an answer is an error in the envelope of the contract."""
    try:
        found: Any = json.loads(body)
        entry = found["errors"][0]
        shape = (found["success"], found["messages"], isinstance(entry["message"], str))
        return shape == (False, [], True) and not found["result"] and entry["code"] > 0
    except (ValueError, LookupError, TypeError):
        return False


def agrees(found: Scores, expected: Scores) -> bool:
    """Whether two answers are the same but for the rounding of another batch."""
    return difference(found, expected) <= TOLERANCE


async def reference(target: Target, texts: Iterable[str]) -> dict[str, Scores]:
    """The answer to each text, asked one after the other on an idle server."""
    asked = list(texts)
    return dict(zip(asked, await classify_sequentially(target, asked), strict=True))


@asynccontextmanager
async def open_loop(per_s: float, send: Callable[[int], Awaitable[None]]) -> AsyncIterator[None]:
    """Start ``send(0)``, ``send(1)``, … at a fixed rate until the block ends, then wait for all of them."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    sent: set[asyncio.Future[None]] = set()

    async def start() -> None:
        number = 0
        while True:
            task = asyncio.ensure_future(send(number))
            sent.add(task)
            task.add_done_callback(sent.discard)
            number += 1
            await asyncio.sleep(max(0.0, began + number / per_s - loop.time()))

    starting = asyncio.create_task(start())
    try:
        yield
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await asyncio.gather(*sent)


async def ask(
    target: Target, connections: Connections, text: str, expected: Iterable[Scores], book: Book
) -> None:
    """Send one text and write into the book what became of it."""
    at_s = book.now_s()
    status, code, right = NO_ANSWER, 0, False
    try:
        status, body = await asyncio.wait_for(
            connections.exchange(target.request(text)), target.deadline_s + target.grace_s
        )
        if status == 200:
            found = scores_of(body)
            right = any(agrees(found, answer) for answer in expected)
        else:
            right = is_refusal(body)
            code = json.loads(body)["errors"][0]["code"] if right else 0
    except asyncio.TimeoutError:
        status = HUNG
    except OSError:
        pass
    book.outcomes.append(Outcome(at_s, book.now_s() - at_s, status, code, right))


@asynccontextmanager
async def load(
    target: Target, answers: Mapping[str, Scores], per_s: float, *others: Mapping[str, Scores]
) -> AsyncIterator[Book]:
    """Send ``per_s`` requests a second until the end of the block, then wait for the last answers.

    Args:
        target: whom to ask.
        answers: the texts to send, in turn, with what is right.
        per_s: requests a second.
        others: what is right as well, such as the answers of the next version.
    """
    loop = asyncio.get_running_loop()
    connections = Connections(target)
    book = Book(loop.time(), loop.time)
    texts = list(answers)

    async def send(number: int) -> None:
        text = texts[number % len(texts)]
        await ask(target, connections, text, [answers[text], *(other[text] for other in others)], book)

    try:
        async with open_loop(per_s, send):
            yield book
    finally:
        connections.close()
