"""How the peers are asked, judged and shown."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench.compare import as_table
from loadtest.bench.document import as_document
from loadtest.bench.figures import Sample
from loadtest.bench.invariance import Invariance
from loadtest.bench.peers.agreement import answers, compare_answers
from loadtest.bench.peers.ways import MeasuredServer, MeasuredServers, peer_ways, settle
from loadtest.bench.plots import write_plots
from loadtest.bench.processes import ProcessTree
from loadtest.bench.report import about, as_markdown, tables
from loadtest.bench.rounds import Facts, Result
from loadtest.client import LoadError, Target
from tests.support.peers import answering, scores

TEXTS = [f"text {number}" for number in range(40)]


def _server(name: str, *pids: int) -> MeasuredServer:
    return MeasuredServer(name, Target(f"http://{name}", "none", "/"), [ProcessTree(pid) for pid in pids])


def test_all_servers_are_asked_in_turn_and_the_null_models_last_for_half_the_time() -> None:
    asked: list[tuple[str, int, float]] = []

    def load(target: Target, texts: Sequence[str], connections: int, seconds: float) -> Sample:
        assert texts == TEXTS
        asked.append((target.url, connections, seconds))
        return {"rate": 50.0, "texts": 100}

    servers = MeasuredServers(
        [_server("tritonflare"), _server("a, b")],
        [_server("null-ours"), _server("null-b")],
    )
    ways = list(peer_ways(servers, load, TEXTS, 2.0, (1, 8), (128,)))
    for way in ways:
        way.measure()
    assert asked == [
        ("http://tritonflare", 1, 2.0),
        ("http://a, b", 1, 2.0),
        ("http://tritonflare", 8, 2.0),
        ("http://a, b", 8, 2.0),
        ("http://null-ours", 128, 1.0),
        ("http://null-b", 128, 1.0),
    ]
    assert [way.name for way in ways[:3]] == [
        "1 connection, tritonflare",
        "1 connection, a, b",
        "8 connections, tritonflare",
    ]
    assert ways[1].facts == {"connections": 1, "null": 0, "server": "a, b"}
    assert ways[4].name == "null model, 128 connections, null-ours"
    assert {way.section for way in ways} == {"peers"}


def test_the_cpu_time_of_all_processes_of_a_server_is_counted_for_a_thousand_texts() -> None:
    def load(*_: Any) -> Sample:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        return {"rate": 1.0, "texts": 100}

    once, twice = _server("once", os.getpid()), _server("twice", os.getpid(), os.getpid())
    ways = peer_ways(MeasuredServers([once, twice], []), load, TEXTS, 1.0, (1,), ())
    one, two = (way.measure() for way in ways)
    # The clock ticks a hundred times a second.
    assert one["server_cpu_s"] == pytest.approx(3.0, abs=0.5)
    assert one["load_cpu_s"] == pytest.approx(3.0, abs=0.5)
    assert two["server_cpu_s"] == pytest.approx(2 * two["load_cpu_s"], rel=0.2)


@pytest.mark.parametrize(
    ("cpu", "looks"),
    [
        ([0.0, 0.0], 1),
        ([1.0, 1.1, 1.2, 1.21, 1.3], 3),
        ([0.1 * turn for turn in range(100)], 30),
    ],
)
def test_the_next_server_waits_until_the_last_one_is_idle_but_not_for_ever(
    cpu: list[float], looks: int
) -> None:
    readings = iter(cpu)
    slept: list[float] = []
    settle(lambda: next(readings), slept.append)
    assert len(slept) == looks


def _answers(offset: float) -> Callable[[str], Any]:
    """Another score for each text, so that answers to other texts are found, too."""

    def answer(text: str) -> Any:
        positive = int(text.split()[1]) / 100 + offset
        return scores(NEGATIVE=1 - positive, POSITIVE=positive)

    return answer


@pytest.fixture
def ours() -> Iterator[MeasuredServer]:
    with answering("tritonflare", lambda text: {"result": _answers(0)(text), "success": True}) as server:
        yield server


def test_peers_whose_scores_are_ours_are_compared(ours: MeasuredServer) -> None:
    with answering("near", _answers(5e-5)) as near, answering("same", _answers(0)) as same:
        assert compare_answers([ours, near, same], TEXTS) == pytest.approx(5e-5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (_answers(2e-4), r"other computes something else: .* 2\.0e-04"),
        (lambda text: list(reversed(_answers(0)(text))), r"other computes something else: .* inf"),
        (lambda _text: _answers(0)("text 3"), "other computes something else"),
        (lambda _text: {"result": None}, "holds no scores"),
        (lambda _text: [], "holds no scores"),
    ],
)
def test_a_peer_that_computes_something_else_is_an_error(
    ours: MeasuredServer, wrong: Callable[[str], Any], words: str
) -> None:
    with answering("other", wrong) as other, pytest.raises(LoadError, match=words):
        compare_answers([ours, other], TEXTS)


def test_a_peer_that_does_not_answer_is_an_error_too() -> None:
    release = threading.Event()
    try:
        with answering("slow", lambda text: text == "text 7" and release.wait(10)) as slow:
            with pytest.raises(LoadError, match="1 of 1 texts were not answered"):
                answers(slow.target, ["text 7"], timeout_s=0.2)
            release.set()
    finally:
        release.set()


def _result(server: str, connections: int, *rates: float, null: bool = False, cpu: float = 2.0) -> Result:
    facts: Facts = {"connections": connections, "null": int(null), "server": server}
    samples: list[Sample] = [
        {"rate": rate, "texts": rate, "p50_ms": 20.0, "p99_ms": 50.0, "server_cpu_s": cpu} for rate in rates
    ]
    before = "null model, " if null else ""
    return Result("peers", f"{before}{connections} connections, {server}", facts, samples)


SETTINGS = {
    "rounds": 3,
    "seconds": 2.0,
    "texts": 512,
    "tokens_mean": 25.9,
    "model": "@cf/x",
    "precision": "INT8",
    "load_generator": "wrk 4.1.0",
    "peers": {"packages": {"mosec": {"mosec": "0.9.8", "onnxruntime": "1.32.0"}}, "largest_difference": 9e-8},
}


@pytest.fixture
def document() -> dict[str, Any]:
    """In the second round the machine is half as fast."""
    results = [
        Result(
            "ceiling",
            "one by one, all cores",
            {},
            [{"rate": 600, "texts": 1}, {"rate": 300, "texts": 1}, {"rate": 600, "texts": 1}],
        ),
        _result("tritonflare", 32, 450, 230, 480, cpu=3.21),
        _result("a, b", 32, 300, 140, 320),
        _result("mosec", 32, 500, 250, 510),
        _result("tritonflare", 128, 900, 450, 900, null=True),
        _result("a, b", 128, 600, 300, 600, null=True),
        _result("mosec", 128, 300, 150, 300, null=True),
    ]
    return as_document(results, {"cpu": "a CPU", "cores": 2}, SETTINGS, Invariance([]), {})


def test_the_table_shows_each_server_beside_the_best_peer(document: dict[str, Any]) -> None:
    (table,) = (each for each in tables(document) if each.title.startswith("Beside other servers"))
    assert {len(row) for row in table.rows} == {len(table.heads)}
    found = {row[0]: dict(zip(table.heads, row, strict=True)) for row in table.rows}
    ours = found["32 connections, tritonflare"]
    assert (ours["texts/s"], ours["min–max"]) == ("450", "230–480")
    assert ours["of ceiling"] == "0.77"  # 450 / 600, 230 / 300, 480 / 600
    assert ours["of best peer"] == "0.92"  # 450 / 500, 230 / 250, 480 / 510
    assert (ours["p50 ms"], ours["p99/p50"], ours["CPU ms/text"]) == ("20.0", "2.5", "3.21")
    assert found["32 connections, mosec"]["of best peer"] == "1.00"
    assert found["32 connections, a, b"]["of best peer"] == "0.60"  # 300 / 500, 140 / 250, 320 / 510
    null = found["null model, 128 connections, tritonflare"]
    assert (null["of ceiling"], null["of best peer"]) == ("–", "1.50")


def test_the_summary_names_the_best_peer_of_each_load(document: dict[str, Any]) -> None:
    assert dict(document["summary"]) == {
        "32 connections: share of the best peer, mosec": pytest.approx(0.92),
        "null model, 128 connections: share of the best peer, a, b": 1.5,
    }


def test_the_report_names_the_peers_versions_and_how_near_their_answers_were(
    document: dict[str, Any], tmp_path: Path
) -> None:
    lines = about(document)
    assert "mosec: mosec 0.9.8, onnxruntime 1.32.0." in lines
    assert any("512 sentences, but for 9.0e-08" in line for line in lines)
    assert "| 32 connections, mosec | 500 | 250–510 | 0.83 | 1.00 |" in as_markdown(document)
    (file,) = write_plots(document, tmp_path)
    assert file.name == "peers.png"
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_report_of_long_texts_says_so(document: dict[str, Any]) -> None:
    long = document | {"settings": {**SETTINGS, "tokens": 200, "texts": 128, "tokens_mean": 199.6}}
    titles = {table.title for table in tables(long)}
    assert "Beside other servers of the same model, texts of about 200 tokens" in titles
    lines = about(long)
    assert any("128 texts of 199.6 tokens" in line for line in lines)
    assert any("128 texts, but for 9.0e-08" in line for line in lines)
    rows = as_table(document, long).rows
    assert ["measured with: tokens", "None", "200", "", ""] in rows
