"""The same queries and contexts to the gateway and to each peer, at equal concurrency, in turn."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import uvloop

from loadtest.bench.figures import Sample, timed
from loadtest.bench.peers.servers import RunningPeer
from loadtest.bench.peers.ways import OURS, MeasuredServer, metered
from loadtest.bench.processes import ProcessTree
from loadtest.bench.rerank import Differences, Question, Scores, read_answer
from loadtest.bench.rounds import Facts, Way
from loadtest.client import ClientConnection, LoadError, Target

SECTION = "rerank peers"


class RerankingServer:
    """A server that is measured: the form of its requests and answers, and how near its scores are to ours.

    ``pairs_apart`` sends each context in a request of its own, all at once.
    """

    def __init__(self, server: MeasuredServer, alone: Sequence[Scores], pairs_apart: bool = False) -> None:
        """``alone`` has our scores of the contexts of each question, each asked alone."""
        self.server = server
        self.is_ours = server.name == OURS
        self._pairs_apart = pairs_apart
        self._differences = [Differences(scores) for scores in alone]

    @property
    def largest_difference(self) -> float:
        """The largest |difference| of a score from that of its context alone; infinite for NaN."""
        return max(each.largest for each in self._differences)

    @property
    def answers(self) -> int:
        """How many questions were answered."""
        return sum(each.answers for each in self._differences)

    def requests(self, question: Question) -> list[bytes]:
        """What is sent at once, each on a connection of its own."""
        target = self.server.target
        if self.is_ours:
            return [target.request_of(question.payload())]
        contexts = list(question.contexts)
        parts = [[context] for context in contexts] if self._pairs_apart else [contexts]
        return [target.request_of({"query": question.query, "contexts": part}) for part in parts]

    def see(self, number: int, question: Question, bodies: Sequence[bytes]) -> None:
        """Read and compare the answers to the requests of a question.

        Raises:
            LoadError: they do not hold a score for each context, or a peer's score is more than BOUND away.
        """
        contexts = len(question.contexts)
        scores = read_answer(bodies[0], contexts) if self.is_ours else _read(bodies, contexts)
        found = self._differences[number]
        found.see(scores)
        if not self.is_ours:
            self.server.require_agreement(found.largest)


def _read(bodies: Sequence[bytes], contexts: int) -> Scores:
    try:
        scores = [float(score) for body in bodies for score in json.loads(body)["scores"]]
    except (ValueError, LookupError, TypeError) as error:
        raise LoadError("an answer holds no scores") from error
    if len(scores) != contexts:
        raise LoadError("the answer does not hold a score for each context")
    return dict(enumerate(scores))


def reranking_servers(
    target: Target, trees: Sequence[ProcessTree], peers: Sequence[RunningPeer], alone: Sequence[Scores]
) -> list[RerankingServer]:
    """Ours first, whose processes are ``trees``; then the peers."""
    servers = [RerankingServer(MeasuredServer(OURS, target, trees), alone)]
    for peer in peers:
        measured = MeasuredServer.of_process(peer.name, peer.target, peer.pid)
        servers.append(RerankingServer(measured, alone, peer.pairs_apart))
    return servers


def compare_scores(servers: Sequence[RerankingServer], questions: Sequence[Question]) -> None:
    """Ask every question of every server once; it warms them up, too.

    Raises:
        LoadError: see `RerankingServer.see`.
    """
    for server in servers:
        ask(server, questions, 0.0)


def reranking_ways(
    servers: Sequence[RerankingServer],
    questions: Sequence[Question],
    connections: Sequence[int],
    seconds: float,
) -> Iterator[Way]:
    """All servers at one number of connections, then at the next.

    Args:
        servers: ours first.
        questions: as many as the most connections, each with as many contexts.
        connections: how many questions are asked at once.
        seconds: how long each measurement sends.
    """
    for count in connections:
        for server in servers:
            name = server.server.name
            measure = partial(metered, server.server, partial(ask, server, questions[:count], seconds))
            facts: Facts = {"connections": count, "null": 0, "server": name}
            yield Way(SECTION, f"{count} connection{'' if count == 1 else 's'}, {name}", measure, facts)


@dataclass(frozen=True)
class _Answer:
    """The answers to all requests of the question with this number."""

    number: int
    latency_s: float
    bodies: Sequence[bytes]


def ask(server: RerankingServer, questions: Sequence[Question], seconds: float) -> Sample:
    """Ask each question again and again on a connection of its own, at least once.

    Answers that are due when the time is over are waited for and count, with the time that they take: a
    server that answers all questions together would else have done a lot or nothing. All answers are read
    and compared afterwards, because the client runs on the server's cores.

    Raises:
        LoadError: an answer was not 200, or see `RerankingServer.see`.
    """
    answers: list[_Answer] = []
    elapsed_s = uvloop.run(_ask(server, questions, seconds, answers))
    for answer in answers:
        server.see(answer.number, questions[answer.number], answer.bodies)
    return timed([answer.latency_s for answer in answers], elapsed_s, len(questions[0].contexts))


async def _ask(
    server: RerankingServer, questions: Sequence[Question], seconds: float, answers: list[_Answer]
) -> float:
    """Add to ``answers``; return how many seconds they took together."""
    callers: list[_Caller] = []
    try:
        for question in questions:
            callers.append(await _Caller.connect(server.server.target, server.requests(question)))
        begin = time.perf_counter()

        async def repeat(number: int) -> None:
            sent = begin
            while True:
                bodies = await callers[number].exchange()
                now = time.perf_counter()
                answers.append(_Answer(number, now - sent, bodies))
                sent = now
                if sent >= begin + seconds:
                    return

        await asyncio.gather(*map(repeat, range(len(callers))))
        return time.perf_counter() - begin
    except OSError as error:
        raise LoadError(f"no answer: {error}") from error
    finally:
        for caller in callers:
            caller.close()


@dataclass(frozen=True)
class _Caller:
    """The requests of a question, and a connection for each of them."""

    requests: Sequence[bytes]
    connections: Sequence[ClientConnection]

    @classmethod
    async def connect(cls, target: Target, requests: Sequence[bytes]) -> _Caller:
        return cls(requests, [await ClientConnection.open(target) for _ in requests])

    async def exchange(self) -> list[bytes]:
        """Send all requests at once; return the bodies of the answers."""
        pairs = zip(self.connections, self.requests, strict=True)
        answers = await asyncio.gather(*(connection.exchange(request) for connection, request in pairs))
        if wrong := {status for status, _ in answers} - {200}:
            raise LoadError(f"the server answered {max(wrong)}")
        return [body for _, body in answers]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
