"""Load on several gateways as a client of a fleet sends it: what breaks, or is 503, goes to the next.

A gateway that has just started is 503 until it knows the models, and nobody asks its ``/readyz`` here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.support.load import Answer, Connections, Target, agrees, scores

ATTEMPTS = 3
"""What the official SDKs make of a request: one, and two more when a connection breaks or it is 503."""


@dataclass(frozen=True)
class Sent:
    """One request and what became of it."""

    left_s: float
    """By the event loop's clock."""
    answered_s: float
    gateways: tuple[int, ...]
    """Whom it asked; all but the last broke or refused the connection, or were not available."""
    status: int
    """HTTP status; 0 where every attempt broke."""
    right: bool


@dataclass
class Log:
    """All requests of a load, those under way left out."""

    sent: list[Sent] = field(default_factory=list)

    def lost(self) -> list[Sent]:
        """Requests without the right answer."""
        return [sent for sent in self.sent if not (sent.status == 200 and sent.right)]

    def broken(self) -> list[Sent]:
        """Requests that had to be sent again."""
        return [sent for sent in self.sent if len(sent.gateways) > 1]


@asynccontextmanager
async def fleet_load(
    targets: Sequence[Target], answers: Mapping[str, Answer], per_s: float
) -> AsyncIterator[Log]:
    """Send ``per_s`` requests a second, each to the next gateway in turn, until the end of the block.

    Args:
        targets: the gateways.
        answers: the texts to send with the answers that are right.
        per_s: requests a second, whatever became of those before.
    """
    loop = asyncio.get_running_loop()
    log, asking = Log(), set[asyncio.Task[None]]()
    connections = [Connections(target) for target in targets]
    texts = list(answers)

    async def one(number: int) -> None:
        text, left = texts[number % len(texts)], loop.time()
        tried: list[int] = []
        status, right = 0, False
        while status in (0, 503) and len(tried) < ATTEMPTS:
            gateway = (number + len(tried)) % len(targets)
            tried.append(gateway)
            with suppress(OSError, EOFError):
                status, body = await connections[gateway].exchange(targets[gateway].request(text))
                right = status == 200 and agrees(scores(body), answers[text])
        log.sent.append(Sent(left, loop.time(), tuple(tried), status, right))

    async def send() -> None:
        began, number = loop.time(), 0
        while True:
            task = asyncio.create_task(one(number))
            asking.add(task)
            task.add_done_callback(asking.discard)
            number += 1
            await asyncio.sleep(max(0.0, began + number / per_s - loop.time()))

    sending = asyncio.create_task(send())
    try:
        yield log
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await asyncio.gather(*asking)
        for kept in connections:
            kept.close()
