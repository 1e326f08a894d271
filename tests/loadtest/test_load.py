"""The load generators before a small server that takes down what it is asked."""

from __future__ import annotations

import asyncio
import json
import math
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadtest.bench.figures import Sample
from loadtest.bench.invariance import Invariance
from loadtest.bench.wrk import Wrk, find_wrk, read_summary, threads_for
from loadtest.checks import difference
from loadtest.client import LoadError, Target
from loadtest.closed_loop import Load, ask, over_http, starts

TEXTS = ['He said "no\\way\\".', "Naïve – 100 % 🍕\n", "]] --[[ %d\t'", "plain"]

# As wrk 4.1.0 printed it for our script.
GOOD = """Running 3s test @ http://127.0.0.1:18999/x
  2 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    85.12ms   22.17ms 218.25ms   87.03%
    Req/Sec   187.30     46.00   250.00     60.00%
  1124 requests in 3.00s, 658.63KB read
Requests/sec:    374.52
Transfer/sec:    219.31KB
tritonflare requests=1124 us=3001183 status=0 socket=0 p50=81809 p99=199512
"""
REFUSED = "tritonflare requests=1297 us=1005492 status=1297 socket=0 p50=1109 p99=9740\n"
HUNG_UP = "tritonflare requests=12 us=1005492 status=0 socket=3 p50=1109 p99=9740\n"
SILENT = "tritonflare requests=0 us=1005492 status=0 socket=0 p50=0 p99=0\n"


def test_wrk_is_read_from_our_own_line() -> None:
    assert read_summary(GOOD) == {
        "rate": pytest.approx(374.519),
        "texts": 1124,
        "p50_ms": 81.809,
        "p99_ms": 199.512,
    }


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (REFUSED, "1297 of 1297 answers were errors"),
        (HUNG_UP, "3 connections failed"),
        (SILENT, "no request was answered"),
        ("Requests/sec: 12\n", "printed no result"),
    ],
)
def test_a_run_of_wrk_that_measured_nothing_is_an_error(output: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        read_summary(output)


@pytest.mark.parametrize(
    ("connections", "cores", "threads"), [(1, 2, 1), (32, 2, 2), (9, 2, 1), (9, 4, 3), (128, 96, 64)]
)
def test_wrk_gets_as_many_threads_as_divide_the_connections(
    connections: int, cores: int, threads: int
) -> None:
    assert threads_for(connections, cores) == threads


class _Server(socketserver.ThreadingTCPServer):
    """Answers scores that depend on the text; ``seen`` are the texts of each connection."""

    daemon_threads = True
    allow_reuse_address = True
    shift = 0.0
    status = "200 OK"
    one_fails = False
    """Whether one text of several is answered with an error."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        super().__init__(("127.0.0.1", 0), _Connection)

    @property
    def target(self) -> Target:
        return Target(f"http://127.0.0.1:{self.server_address[1]}", "secret", "/run/@cf/x")


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        mine: list[str] = []
        server.seen.append(mine)
        while self.rfile.readline():
            headers = {}
            while (line := self.rfile.readline().strip()) != b"":
                name, _, value = line.partition(b": ")
                headers[name.lower()] = value
            payload = json.loads(self.rfile.read(int(headers[b"content-length"])))
            several = [one["text"] for one in payload.get("requests", ())]
            text = json.dumps(several) if several else payload["text"]
            assert headers[b"authorization"] == b"Bearer secret"
            mine.append(text)
            score = 0.5 + len(text) / 1000 + server.shift
            scores = [{"label": "A", "score": score}, {"label": "B", "score": 0.5}]
            answer = {"result": scores, "success": not (several and server.one_fails)}
            body = json.dumps(answer, separators=(",", ":")).encode()
            head = f"HTTP/1.1 {server.status}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            # In two parts, as a network may deliver it.
            self.wfile.write(head[:20])
            self.wfile.write(head[20:] + body)


@contextmanager
def _serving() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _loads() -> list[object]:
    wrk = find_wrk()
    missing = pytest.mark.skip(reason="wrk is not installed")
    return [
        pytest.param(over_http, id="own"),
        pytest.param(Wrk(wrk or "wrk"), id="wrk", marks=() if wrk else missing),
    ]


@pytest.mark.parametrize("load", _loads())
def test_a_load_asks_every_text_unchanged_from_several_places(load: Load) -> None:
    with _serving() as server:
        sample: Sample = load(server.target, TEXTS, 2, 0.2)
    assert {text for seen in server.seen for text in seen} == set(TEXTS)
    # wrk looks whether anybody is there before it begins.
    first = [seen[0] for seen in server.seen if seen]
    assert len(set(first)) == len(first) == 2
    assert 0 < sample["p50_ms"] <= sample["p99_ms"]
    answered = sum(map(len, server.seen))
    assert answered - 4 <= sample["texts"] <= answered


@pytest.mark.parametrize("load", _loads())
def test_a_load_does_not_count_refusals_as_answers(load: Load) -> None:
    with _serving() as server:
        server.status = "429 Too Many Requests"
        with pytest.raises(LoadError, match=r"429|errors"):
            load(server.target, TEXTS, 2, 0.2)


def test_our_own_load_asks_several_texts_in_one_request() -> None:
    with _serving() as server:
        sample = over_http(server.target, TEXTS, 2, 0.2, 2)
        asked = [request for seen in server.seen for request in seen]
        assert set(asked) == {json.dumps(TEXTS[:2]), json.dumps(TEXTS[2:])}
        assert sample["texts"] == 2 * len(asked)
        server.one_fails = True
        with pytest.raises(LoadError, match="one of several texts"):
            over_http(server.target, TEXTS, 2, 0.2, 2)


def test_no_listener_is_a_load_error() -> None:
    with _serving() as server:
        target = server.target
    with pytest.raises(LoadError):
        asyncio.run(ask(target, TEXTS, starts(len(TEXTS), 1), lambda _place, _seconds, _body: None, 0.1))


def test_a_score_that_moves_under_load_is_found() -> None:
    with _serving() as server:
        invariance = Invariance(TEXTS)
        invariance.classify_sequentially(server.target)
        assert server.seen == [TEXTS]
        invariance.compare(server.target, 3, 0.1)
        calm = (invariance.holds, invariance.largest, invariance.answers)
        server.shift = 2e-4
        invariance.compare(server.target, 3, 0.1)
    assert calm[:2] == (True, 0)
    assert 3 <= calm[2] < invariance.answers
    assert invariance.largest == pytest.approx(2e-4)
    assert not invariance.holds


def test_other_labels_are_as_different_as_can_be() -> None:
    assert difference({"A": 0.5}, {"B": 0.5}) == math.inf
