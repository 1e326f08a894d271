"""``tritonflare bench-rerank``: its parts on a small random reranker, and the command itself."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from export.repository.inventory import Published, read_inventory
from loadtest.bench.figures import Sample
from loadtest.bench.peers.servers import RERANKING_PEERS
from loadtest.bench.rerank import (
    APART,
    BOUND,
    GROUPS,
    LOOP,
    TOGETHER,
    Differences,
    PairsInProcess,
    Question,
    make_question,
    middle,
    summary,
)
from loadtest.bench.rounds import Result
from loadtest.bench.sentences import token_lengths
from tests.support.peers import require_peers
from tests.support.rerankers import RERANKER_TOKENS, reranker_repository
from tests.support.servers import finished

WORDS = ["a cat sat on my mat", "the dog ran far", "I saw a bird fly by"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reranker_repository(tmp_path_factory.mktemp("reranker"))


@pytest.fixture(scope="module")
def model(repository: Path) -> Published:
    return next(each for each in read_inventory(repository) if len(each.labels) == 1)


def test_contexts_are_of_about_the_wanted_length_and_in_no_order(repository: Path, model: Published) -> None:
    tokenizer = model.tokenizer_file(repository)
    question = make_question(tokenizer, WORDS, 9, 20)
    lengths = token_lengths(tokenizer, question.contexts)
    assert sorted(lengths) == [12, 14, 16, 18, 20, 22, 24, 26, 28]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))
    assert len(set(question.contexts)) == 9


def test_in_process_groups_give_the_scores_of_pairs_one_by_one(repository: Path, model: Published) -> None:
    onnx, tokenizer = model.weights_file(repository), model.tokenizer_file(repository)
    local = PairsInProcess(onnx, tokenizer, RERANKER_TOKENS)
    try:
        question = Question("a cat", [" ".join(WORDS * repeats)[:length] for repeats, length in _SIZES])
        one_by_one, grouped = local.loop(question), local.groups(question)
    finally:
        local.close()
    assert list(one_by_one) == list(range(len(_SIZES)))
    assert grouped == pytest.approx(one_by_one, abs=1e-6)
    assert len({round(score, 3) for score in one_by_one.values()}) > 5


_SIZES = [(1 + number % 9, 3 + 7 * number) for number in range(20)]


def test_the_ratios_are_taken_round_by_round() -> None:
    def way(name: str, pairs: int, *ms: float) -> Result:
        return Result("rerank", name, {"pairs": pairs}, [Sample(ms=one, rate=1.0) for one in ms])

    results = [
        way(TOGETHER, 10, 10, 20, 30),
        way(TOGETHER, 20, 20, 40, 80),
        way(TOGETHER, 30, 30, 60, 90),
        way(APART, 20, 40, 40, 800),
        way(LOOP, 20, 20, 20, 80),
        way(GROUPS, 20, 10, 10, 160),
    ]
    found = summary(results, (10, 20, 30))
    assert found["time of one request against: a request for each context"] == 0.5
    assert found["ms of 20 contexts in one request"] == 40
    assert found["ms a context"] == pytest.approx(2)
    assert found["R² of ms against contexts"] == pytest.approx(1)


def test_fifty_contexts_are_what_all_ways_are_compared_at() -> None:
    assert middle((10, 20, 50, 100)) == 50
    assert middle((4, 2, 6)) == 4


def test_the_largest_difference_from_a_context_alone_is_kept() -> None:
    differences = Differences({0: 0.5, 1: 0.25})
    for scores in ({0: 0.5}, {0: 0.5, 1: 0.3}, {1: 0.25}):
        differences.see(scores)
    assert differences.largest == pytest.approx(0.05)
    assert differences.answers == 3


@pytest.mark.parametrize("scores", [{0: math.nan, 1: 0.25}, {0: 0.5, 1: math.nan}])
def test_a_score_that_is_no_number_is_no_match(scores: dict[int, float]) -> None:
    differences = Differences({0: 0.5, 1: 0.25})
    differences.see(scores)
    differences.see({0: 0.5, 1: 0.25})
    assert not differences.largest <= BOUND


@pytest.mark.needs_triton
def test_a_short_run_measures_every_way(repository: Path, tmp_path: Path) -> None:
    options = ("--repository", str(repository), "--contexts", "2,4,6", "--tokens", "20")
    quick = ("--connections", "1,2", "--rounds", "2", "--seconds", "0.05", "--output", str(tmp_path))
    tunables = "glibc.malloc.hugetlb=1"
    status, output = finished("bench-rerank", *options, *quick, timeout=120, GLIBC_TUNABLES=tunables)
    assert status == 0, output
    document = json.loads((tmp_path / "rerank.json").read_text(encoding="utf-8"))
    assert document["settings"]["environment"]["GLIBC_TUNABLES"] == tunables
    found = [(way["name"], way["pairs"], len(way["rounds"])) for way in document["ways"]]
    assert found == [(TOGETHER, count, 2) for count in (2, 4, 6)] + [
        (name, 4, 2) for name in (APART, LOOP, GROUPS)
    ]
    servers = [(row["name"], row["facts"]["pairs"], len(row["rounds"])) for row in document["servers"]]
    assert servers == [("1 connection, tritonflare", 4, 2), ("2 connections, tritonflare", 4, 2)]
    # Each way twice, and once both questions of the two connections before.
    assert document["answers"] >= 12 + 2 * 3 + 2
    assert document["largest_difference"] <= 1e-4
    assert all(ratio > 0 for name, ratio in document["summary"].items() if name.startswith("time of"))


@pytest.mark.needs_triton
def test_peers_rerank_the_same_contexts_in_the_same_rounds(repository: Path, tmp_path: Path) -> None:
    require_peers()
    options = ("--repository", str(repository), "--contexts", "6", "--tokens", "20", "--connections", "1,3")
    quick = ("--rounds", "2", "--seconds", "0.1", "--output", str(tmp_path))
    status, output = finished("bench-rerank", *options, *quick, "--peers", "fastapi,mosec", timeout=240)
    assert status == 0, output
    document = json.loads((tmp_path / "rerank.json").read_text(encoding="utf-8"))
    names = ["tritonflare", *(peer.name for peer in RERANKING_PEERS)]
    rows = document["servers"]
    assert [row["facts"]["server"] for row in rows] == 2 * names
    assert [row["facts"]["connections"] for row in rows] == [1] * len(names) + [3] * len(names)
    assert all(len(row["rounds"]) == 2 and row["medians"]["of_ceiling"] > 0 for row in rows)
    assert all(row["medians"]["server_cpu_s"] > 0 for row in rows)
    assert document["settings"]["peers"]["largest_difference"] <= 1e-4
    assert set(document["settings"]["peers"]["packages"]) == {"fastapi", "mosec"}
    assert "Beside other servers of the same model, 6 contexts of about 20 tokens" in output
    assert len([what for what in document["summary"] if "share of the best peer" in what]) == 2


def test_a_classifier_is_refused_by_name(repository: Path) -> None:
    status, output = finished("bench-rerank", "--repository", str(repository), "--model", "@local/mood")
    assert (status, "@local/mood is no reranker of" in output) == (1, True), output
    assert "there are: @cf/baai/bge-reranker-base." in output


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_reranker_for_a_gpu_is_not_compared_with_the_cpu(
    repository: Path, tmp_path: Path, device: str
) -> None:
    copied = tmp_path / "models"
    shutil.copytree(repository, copied)
    config = copied / "cf-baai-bge-reranker-base" / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    found = re.sub(r'(key: "tritonflare.target"\s*value \{\s*string_value: )"cpu"', r'\1"cuda"', text)
    assert found != text
    config.write_text(found, encoding="utf-8")
    status, output = finished("bench-rerank", "--repository", str(copied), "--device", device, COLUMNS="200")
    assert (status, "computes on the CPU; add --device cpu." in output) == (2, True), output
