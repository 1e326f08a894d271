"""Asks both servers, each at its own pace, one text a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass

from bulk.client.classify import ARRAYS, Failure, read_single
from bulk.client.http import ApiClient, Reply, ServerAddress
from bulk.compare.answers import Side, SideAnswer
from bulk.compare.journal import CompareJournal


@dataclass(frozen=True, slots=True)
class Target:
    """A server to ask."""

    number: int
    """0 is side A, 1 is side B."""
    side: Side
    address: ServerAddress
    ca_file: str | None = None


async def ask_all(
    targets: Sequence[Target],
    texts: Sequence[str],
    journal: CompareJournal,
    on_answer: Callable[[int], None] = lambda side: None,
    patience_s: float = 300.0,
) -> None:
    """Ask for every text that the journal has no answer to; answers that are errors are asked again.

    Args:
        targets: one or two.
        texts: none of them empty.
        journal: gets the answers.
        on_answer: called with the side after each.
        patience_s: see `ApiClient`.

    Raises:
        ServerError: a server refuses, or does not answer any more. What arrived before is in the journal.
    """
    await _all_or_none([_ask(target, texts, journal, on_answer, patience_s) for target in targets])


async def _ask(
    target: Target,
    texts: Sequence[str],
    journal: CompareJournal,
    on_answer: Callable[[int], None],
    patience_s: float,
) -> None:
    known = journal.answers[target.number]
    places = iter([place for place in range(len(texts)) if place not in known or known[place].error])
    pace = _Pace(target.side.per_minute)

    async def work(client: ApiClient, places: Iterator[int]) -> None:
        for place in places:
            await pace.wait()
            reply = await client.run(target.side.model, {"text": texts[place]}, query=ARRAYS)
            journal.add(target.number, place, _read(reply))
            on_answer(target.number)

    connections = target.side.connections
    async with ApiClient(target.address, connections, patience_s, target.ca_file) as client:
        await _all_or_none([work(client, places) for _ in range(connections)])


async def _all_or_none(works: Sequence[Coroutine[None, None, None]]) -> None:
    """Wait for all; when one fails, end the others first."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Pace:
    """Spreads requests evenly over a minute; a quiet time allows no burst."""

    def __init__(self, per_minute: float) -> None:
        self._between_s = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Wait for the next place."""
        now = time.monotonic()
        begins = max(now, self._next)
        self._next = begins + self._between_s
        if begins > now:
            await asyncio.sleep(begins - now)


def _read(reply: Reply) -> SideAnswer:
    answer = read_single(reply)
    if isinstance(answer, Failure):
        return SideAnswer(error=answer.reason)
    return SideAnswer(
        answer.labels, answer.scores, answer.truncated, reply.seconds, reply.model_version or ""
    )
