"""A load of single texts on a running gateway that keeps book of every request.

Open loop: requests leave at a fixed rate, whatever became of those before, so a server that hangs is
not asked less. One that takes long opens another connection; the others are used again.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TOLERANCE = 1e-6
"""Scores beside neighbours differ from those alone by less; ten times as much as was ever measured."""
NO_ANSWER = 0
"""The status of a request whose connection broke or was refused."""
HUNG = -1
"""The status of a request without an answer long after its deadline."""

Answer = Mapping[str, float]
"""Scores by label."""


@dataclass(frozen=True)
class Target:
    """A gateway and how to ask it.

    Args:
        url: such as ``http://127.0.0.1:8787``.
        token: API token.
        path: of the model's run endpoint.
        deadline_s: the gateway's own; a request without an answer ``grace_s`` later has hung.
    """

    url: str
    token: str
    path: str
    deadline_s: float = 10.0
    grace_s: float = 2.0

    def request(self, text: str) -> bytes:
        """The bytes of a request for one text."""
        return self.request_of({"text": text})

    def request_of(self, payload: Any) -> bytes:
        """The bytes of a request with any JSON in its body."""
        body = json.dumps(payload).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {urlsplit(self.url).netloc}\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


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

    def refused(self) -> list[Outcome]:
        """Requests with another answer than 200."""
        return [outcome for outcome in self.outcomes if outcome.status > 0 and outcome.status != 200]

    def good_again_s(self, after_s: float) -> float:
        """When the first request that left after ``after_s`` had been answered rightly; else infinity."""
        return min((good.answered_at_s for good in self.good() if good.at_s >= after_s), default=math.inf)


class Connections:
    """Connections to one gateway, kept and used again."""

    def __init__(self, target: Target) -> None:
        address = urlsplit(target.url)
        self._host, self._port = address.hostname, address.port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return status and body.

        Raises:
            OSError, EOFError: refused, or broken before the answer had come; never hidden by a repetition.
        """
        while self._idle and self._idle[-1][0].at_eof():
            self._idle.pop()[1].close()
        reader, writer = (
            self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        )
        whole = False
        try:
            writer.write(request)
            status, length, kept = _head(await reader.readuntil(b"\r\n\r\n"))
            body = await reader.readexactly(length)
            whole = kept
        finally:
            if whole:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return status, body

    def close(self) -> None:
        """Close what is idle."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


def _head(head: bytes) -> tuple[int, int, bool]:
    """Status, length of the body, and whether the connection stays."""
    status, *lines = head.decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    return int(status.split()[1]), int(headers["content-length"]), headers.get("connection") != "close"


def scores(body: bytes) -> Answer:
    """The scores of a successful answer."""
    return {entry["label"]: entry["score"] for entry in json.loads(body)["result"]}


def is_refusal(body: bytes) -> bool:
    """Whether an answer is an error in the envelope of the contract."""
    try:
        found: Any = json.loads(body)
        entry = found["errors"][0]
        shape = (found["success"], found["messages"], isinstance(entry["message"], str))
        return shape == (False, [], True) and not found["result"] and entry["code"] > 0
    except (ValueError, LookupError, TypeError):
        return False


def agrees(found: Answer, expected: Answer) -> bool:
    """Whether two answers are the same but for the rounding of another batch."""
    return list(found) == list(expected) and all(
        math.isclose(found[label], expected[label], rel_tol=0, abs_tol=TOLERANCE) for label in expected
    )


async def reference(target: Target, texts: Iterable[str]) -> dict[str, Answer]:
    """The answer to each text, asked one after the other on an idle server."""
    connections = Connections(target)
    try:
        answers = {}
        for text in texts:
            status, body = await connections.exchange(target.request(text))
            assert status == 200, body
            answers[text] = scores(body)
        return answers
    finally:
        connections.close()


async def capacity(target: Target, texts: Sequence[str], seconds: float = 1.5, callers: int = 32) -> float:
    """Answers a second to ``callers`` who each ask again as soon as they have an answer."""
    loop = asyncio.get_running_loop()
    connections = Connections(target)
    ends = loop.time() + seconds

    async def call(first: int) -> int:
        done = 0
        while loop.time() < ends:
            await connections.exchange(target.request(texts[(first + done * callers) % len(texts)]))
            done += 1
        return done

    began = loop.time()
    try:
        counts = await asyncio.gather(*map(call, range(callers)))
        return sum(counts) / (loop.time() - began)
    finally:
        connections.close()


async def ask(
    target: Target, connections: Connections, text: str, expected: Iterable[Answer], book: Book
) -> None:
    """Send one text and write into the book what became of it."""
    at_s = book.now_s()
    status, code, right = NO_ANSWER, 0, False
    try:
        status, body = await asyncio.wait_for(
            connections.exchange(target.request(text)), target.deadline_s + target.grace_s
        )
        if status == 200:
            found = scores(body)
            right = any(agrees(found, answer) for answer in expected)
        else:
            right = is_refusal(body)
            code = json.loads(body)["errors"][0]["code"] if right else 0
    except asyncio.TimeoutError:
        status = HUNG
    except (OSError, EOFError):
        pass
    book.outcomes.append(Outcome(at_s, book.now_s() - at_s, status, code, right))


@asynccontextmanager
async def load(
    target: Target, answers: Mapping[str, Answer], per_s: float, *others: Mapping[str, Answer]
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
    asking: set[asyncio.Task[None]] = set()

    async def send() -> None:
        number = 0
        while True:
            text = texts[number % len(texts)]
            expected = [answers[text], *(other[text] for other in others)]
            task = asyncio.create_task(ask(target, connections, text, expected, book))
            asking.add(task)
            task.add_done_callback(asking.discard)
            number += 1
            await asyncio.sleep(max(0.0, book.began + number / per_s - loop.time()))

    sending = asyncio.create_task(send())
    try:
        yield book
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        await asyncio.gather(*asking)
        connections.close()
