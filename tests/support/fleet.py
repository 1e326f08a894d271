"""Load on several gateways as a client of a fleet sends it: what breaks, or is 503, goes to the next.

A gateway that has just started is 503 until it knows the models, and nobody asks its ``/readyz`` here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from loadtest.checks import Scores, scores_of
from tests.support.load import NO_ANSWER, Book, Connections, Outcome, Target, agrees, open_loop

ATTEMPTS = 3
"""What the official SDKs make of a request: one, and two more when a connection breaks or it is 503."""


@asynccontextmanager
async def fleet_load(
    targets: Sequence[Target], answers: Mapping[str, Scores], per_s: float
) -> AsyncIterator[Book]:
    """Send ``per_s`` requests a second, each to the next gateway in turn, until the end of the block.

    Args:
        targets: the gateways.
        answers: the texts to send with the answers that are right.
        per_s: requests a second, whatever became of those before.
    """
    loop = asyncio.get_running_loop()
    book = Book(loop.time(), loop.time)
    connections = [Connections(target) for target in targets]
    texts = list(answers)

    async def send(number: int) -> None:
        text, at_s = texts[number % len(texts)], book.now_s()
        asked: list[int] = []
        status, right = NO_ANSWER, False
        while status in (NO_ANSWER, 503) and len(asked) < ATTEMPTS:
            gateway = (number + len(asked)) % len(targets)
            asked.append(gateway)
            with suppress(OSError):
                status, body = await connections[gateway].exchange(targets[gateway].request(text))
                right = status == 200 and agrees(scores_of(body), answers[text])
        latency_s = book.now_s() - at_s
        book.outcomes.append(Outcome(at_s, latency_s, status, right=right, gateways=tuple(asked)))

    try:
        async with open_loop(per_s, send):
            yield book
    finally:
        for kept in connections:
            kept.close()
