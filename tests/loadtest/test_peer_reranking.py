"""How servers are asked to rerank, several at once, and judged; each is a stand-in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from loadtest.bench import rerank, rerank_run
from loadtest.bench.figures import Sample
from loadtest.bench.peers import table as peers_table
from loadtest.bench.peers.reranking import SECTION, RerankingServer, ask, compare_scores, reranking_ways
from loadtest.bench.peers.ways import MeasuredServer
from loadtest.bench.rerank import Question
from loadtest.bench.rounds import Result
from loadtest.client import LoadError
from tests.support.peers import answering_bodies

QUESTIONS = [Question(f"query {number}", [f"{number} {place}" for place in range(5)]) for number in range(3)]


def _score(context: str) -> float:
    number, place = map(int, context.split())
    return number / 10 + place / 100


ALONE = [
    {place: _score(context) for place, context in enumerate(question.contexts)} for question in QUESTIONS
]


def _ours(body: Any) -> Any:
    """Sorted by score, as the gateway answers."""
    found = [{"id": place, "score": _score(each["text"])} for place, each in enumerate(body["contexts"])]
    return {"result": {"response": found[::-1]}, "success": True}


def _theirs(offset: float = 0.0) -> Callable[[Any], Any]:
    return lambda body: {"scores": [_score(context) + offset for context in body["contexts"]]}


@pytest.fixture
def ours() -> Iterator[MeasuredServer]:
    with answering_bodies("tritonflare", _ours) as server:
        yield server


def test_ours_and_the_peers_are_asked_the_same_in_their_own_forms(ours: MeasuredServer) -> None:
    bodies: list[Any] = []

    def seen(body: Any) -> Any:
        bodies.append(body)
        return _theirs(5e-5)(body)

    with answering_bodies("together", seen) as together, answering_bodies("apart", seen) as apart:
        servers = [
            RerankingServer(ours, ALONE),
            RerankingServer(together, ALONE),
            RerankingServer(apart, ALONE, pairs_apart=True),
        ]
        compare_scores(servers, QUESTIONS)
    wholes = [body for body in bodies if len(body["contexts"]) > 1]
    assert sorted(wholes, key=lambda body: body["query"]) == [
        {"query": each.query, "contexts": list(each.contexts)} for each in QUESTIONS
    ]
    singles = [(body["query"], body["contexts"]) for body in bodies if len(body["contexts"]) == 1]
    assert sorted(singles) == [(each.query, [context]) for each in QUESTIONS for context in each.contexts]
    assert [server.largest_difference for server in servers] == [0, pytest.approx(5e-5), pytest.approx(5e-5)]
    assert [server.answers for server in servers] == [3, 3, 3]


@pytest.mark.parametrize("pairs_apart", [False, True])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (_theirs(2e-4), r"other computes something else: .* 2\.0e-04"),
        (_theirs(float("nan")), "other computes something else: .* inf"),
        (lambda body: {"scores": [0.0, *_theirs()(body)["scores"]]}, "not hold a score for each"),
        (lambda body: {"scores": [_score("2 4")] * len(body["contexts"])}, "other computes something else"),
        (lambda _body: {"scores": None}, "holds no scores"),
        (lambda _body: [], "holds no scores"),
        (lambda _body: b"{}", "the server answered 500"),
    ],
)
def test_a_peer_with_other_scores_or_none_is_an_error(
    ours: MeasuredServer, wrong: Callable[[Any], Any], words: str, pairs_apart: bool
) -> None:
    with answering_bodies("other", wrong) as other, pytest.raises(LoadError, match=words):
        compare_scores([RerankingServer(ours, ALONE), RerankingServer(other, ALONE, pairs_apart)], QUESTIONS)


def test_our_own_difference_is_kept_for_the_verdict_and_ends_nothing() -> None:
    with answering_bodies("tritonflare", _ours) as server:
        wrong = RerankingServer(server, [{**scores, 2: 0.9} for scores in ALONE])
        ask(wrong, QUESTIONS, 0.0)
    assert wrong.largest_difference == pytest.approx(0.88)


def test_every_question_is_asked_at_once_at_least_once_and_what_is_due_counts(ours: MeasuredServer) -> None:
    together = threading.Barrier(3)

    def slow(body: Any) -> Any:
        together.wait(10)
        time.sleep(0.2)
        return _theirs()(body)

    with answering_bodies("slow", slow) as peer:
        begin = time.perf_counter()
        sample = ask(RerankingServer(peer, ALONE), QUESTIONS, 0.1)
        wall = time.perf_counter() - begin
    assert sample["texts"] == 15
    assert 200 <= sample["p50_ms"] <= 1000 * wall
    assert 15 / wall <= sample["rate"] <= 15 / 0.2


def test_every_answer_is_compared_but_not_while_the_server_is_measured() -> None:
    events: list[str] = []

    class Watched(RerankingServer):
        def see(self, number: int, question: Question, bodies: Sequence[bytes]) -> None:
            events.append("compared")
            super().see(number, question, bodies)

    def answer(body: Any) -> Any:
        events.append("asked")
        time.sleep(0.01)
        return _theirs()(body)

    with answering_bodies("peer", answer) as peer:
        watched = Watched(peer, ALONE)
        sample = ask(watched, QUESTIONS, 0.1)
    asked = events.count("asked")
    assert asked > len(QUESTIONS)
    assert events == ["asked"] * asked + ["compared"] * asked
    assert (watched.answers, sample["texts"]) == (asked, 5 * asked)


def test_an_answer_that_differs_after_the_first_is_found() -> None:
    seen: list[str] = []

    def answer(body: Any) -> Any:
        seen.append(body["query"])
        return _theirs(2e-4 if len(seen) == 3 else 0)(body)

    with (
        answering_bodies("peer", answer) as peer,
        pytest.raises(LoadError, match="peer computes something else"),
    ):
        ask(RerankingServer(peer, ALONE), QUESTIONS[:1], 0.3)


def test_a_question_in_parts_is_answered_when_its_last_part_is() -> None:
    def answer(body: Any) -> Any:
        time.sleep(0.3 if body["contexts"] == ["0 4"] else 0)
        return _theirs()(body)

    with answering_bodies("apart", answer) as peer:
        sample = ask(RerankingServer(peer, ALONE, pairs_apart=True), QUESTIONS[:1], 0.0)
    assert (sample["texts"], sample["p50_ms"] >= 300) == (5, True)


def test_the_servers_take_turns_at_each_number_of_connections(ours: MeasuredServer) -> None:
    queries: list[tuple[str, str]] = []

    def seen(name: str, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def noted(body: Any) -> Any:
            queries.append((name, body["query"]))
            return answer(body)

        return noted

    with (
        answering_bodies("tritonflare", seen("ours", _ours)) as first,
        answering_bodies("mosec", seen("theirs", _theirs())) as second,
    ):
        servers = [RerankingServer(first, ALONE), RerankingServer(second, ALONE)]
        ways = list(reranking_ways(servers, QUESTIONS, (1, 3), 0.0))
        samples = [way.measure() for way in ways]
    assert [way.name for way in ways] == [
        "1 connection, tritonflare",
        "1 connection, mosec",
        "3 connections, tritonflare",
        "3 connections, mosec",
    ]
    assert queries[:2] == [("ours", "query 0"), ("theirs", "query 0")]
    assert sorted(queries[2:]) == [
        (name, f"query {each}") for name in ("ours", "theirs") for each in range(3)
    ]
    assert all(
        sample["texts"] == 5 * len(queries[:1] if way.facts["connections"] == 1 else QUESTIONS)
        for way, sample in zip(ways, samples, strict=True)
    )
    assert all("server_cpu_s" in sample for sample in samples)


def _results(*servers: str) -> list[Result]:
    """In the second round the machine is half as fast."""
    rates = {"tritonflare": (300, 140, 320), "slow": (200, 90, 210), "mosec": (310, 160, 310)}

    def samples(name: str) -> list[Sample]:
        return [
            {"rate": rate, "texts": 50, "p50_ms": 160.0, "p99_ms": 320.0, "server_cpu_s": 6.5}
            for rate in rates[name]
        ]

    ceiling = Result(
        "rerank", rerank.GROUPS, {"pairs": 50}, [{"rate": rate, "ms": 1} for rate in (280, 140, 280)]
    )
    return [ceiling] + [
        Result(
            SECTION, f"8 connections, {name}", {"connections": 8, "null": 0, "server": name}, samples(name)
        )
        for name in servers
    ]


def test_the_table_has_shares_of_the_best_peer_and_of_the_way_in_process() -> None:
    rows = list(rerank_run._rows(_results("tritonflare", "slow", "mosec"), 50))
    cells = {
        row[0]: dict(zip(peers_table.heads("context"), row, strict=True))
        for row in peers_table.comparison(rows)
    }
    ours = cells["8 connections, tritonflare"]
    assert (ours["contexts/s"], ours["min–max"], ours["CPU ms/context"]) == ("300", "140–320", "6.50")
    assert ours["of ceiling"] == "1.07"  # 300 / 280, 140 / 140, 320 / 280
    assert ours["of best peer"] == "0.97"  # 300 / 310, 140 / 160, 320 / 310
    assert cells["8 connections, slow"]["of best peer"] == "0.65"
    assert dict(peers_table.our_shares(rows)) == {
        "8 connections: share of the best peer, mosec": pytest.approx(300 / 310)
    }


def test_without_peers_there_is_no_share_of_the_best() -> None:
    rows = list(rerank_run._rows(_results("tritonflare"), 50))
    ((*_, share, _p50, _p99, _cpu),) = peers_table.comparison(rows)
    assert share == "–"
    assert not list(peers_table.our_shares(rows))
