"""One run of the reranking bench before a running Triton, its gateway and the peers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.bench import rerank
from loadtest.bench.peers import reranking
from loadtest.bench.peers import table as peers_table
from loadtest.bench.peers.servers import RunningPeer
from loadtest.bench.processes import ProcessTree
from loadtest.bench.report import Table
from loadtest.bench.rounds import Progress, Result, alternate
from loadtest.client import Target


@dataclass(frozen=True)
class RerankPlan:
    """Contexts of a request and their tokens, requests at once, rounds, and seconds a way."""

    contexts: Sequence[int]
    tokens: int
    connections: Sequence[int]
    rounds: int
    seconds: float


@dataclass(frozen=True)
class RerankStack:
    """What runs: the gateway's route, the processes that serve it, and the peers."""

    target: Target
    trees: Sequence[ProcessTree]
    peers: Sequence[RunningPeer]


@dataclass(frozen=True)
class RerankResults:
    """What a run found.

    ``ways`` are those of one request at a time, ``servers`` rows of the table beside other servers.
    ``largest`` is the largest |difference| of a score, ours or in-process, from that of its context alone,
    and ``answers`` how many were compared; ``peer_difference`` is the peers', None without them.
    """

    ways: Sequence[Result]
    servers: Sequence[peers_table.Row]
    summary: Mapping[str, float]
    largest: float
    answers: int
    peer_difference: float | None


def measure(
    plan: RerankPlan,
    tokenizer: Path,
    words: Sequence[str],
    local: rerank.PairsInProcess,
    stack: RerankStack,
    progress: Progress,
) -> RerankResults:
    """All rounds of all ways.

    Args:
        plan: what is measured.
        tokenizer: the model's ``tokenizer.json``.
        words: texts to take words from.
        local: the same model in this process.
        stack: what is asked.
        progress: told what is going on.

    Raises:
        LoadError: a server refused a request, or a peer's scores are not ours.
        ValueError: see `rerank.make_question`.
    """
    question = rerank.make_question(tokenizer, words, max(plan.contexts), plan.tokens)
    count = rerank.middle(plan.contexts)
    questions = rerank.make_questions(tokenizer, words, max(plan.connections), count, plan.tokens)
    progress.step("asking every context alone")
    differences = rerank.Differences(rerank.ask_alone(stack.target, question))
    alone = [rerank.ask_alone(stack.target, each) for each in questions]
    servers = reranking.reranking_servers(stack.target, stack.trees, stack.peers, alone)
    progress.step("comparing the servers' scores")
    reranking.compare_scores(servers, questions)
    ways = [
        *rerank.rerank_ways(stack.target, local, question, plan.contexts, plan.seconds, differences),
        *reranking.reranking_ways(servers, questions, plan.connections, plan.seconds),
    ]
    results = alternate(ways, plan.rounds, progress)
    single = [result for result in results if result.section != reranking.SECTION]
    rows = list(_rows(results, count))
    ours, *peers = servers
    return RerankResults(
        single,
        rows,
        rerank.summary(single, plan.contexts) | dict(peers_table.our_shares(rows)),
        max(differences.largest, ours.largest_difference),
        differences.answers + ours.answers,
        max((each.largest_difference for each in peers), default=None),
    )


def _rows(results: Sequence[Result], count: int) -> Iterator[peers_table.Row]:
    """The servers' results; their ceiling is the better way in-process, with as many contexts."""
    (ceiling,) = (result for result in results if result.name == rerank.GROUPS)
    whole = {"rounds": ceiling.rounds}
    for result in results:
        if result.section == reranking.SECTION:
            row = {"name": result.name, "facts": {"pairs": count, **result.facts}, "rounds": result.rounds}
            yield row | {"medians": result.medians | {"of_ceiling": peers_table.share(row, whole)}}


def tables(model: str, plan: RerankPlan, found: RerankResults) -> list[Table]:
    """One request at a time, several at once beside the peers, and what sums it up."""
    facts = [(what, f"{value:.4g}") for what, value in found.summary.items()]
    facts.append(
        (f"largest difference of a score ({found.answers} answers)", f"{found.largest:.1e}"),
    )
    if found.peer_difference is not None:
        facts.append(("the same of the peers", f"{found.peer_difference:.1e}"))
    title = (
        f"Beside other servers of the same model, {rerank.middle(plan.contexts)} contexts of about "
        f"{plan.tokens} tokens"
    )
    return [
        Table(model, ("", "contexts", "ms", "contexts/s"), rerank.rows(found.ways)),
        Table(title, peers_table.heads("context"), list(peers_table.comparison(found.servers))),
        Table("Summary", ("", "median"), facts),
    ]


def as_json(found: RerankResults) -> dict[str, Any]:
    """Every figure of every round."""
    return {
        "summary": dict(found.summary),
        "largest_difference": found.largest,
        "answers": found.answers,
        "ways": [
            {"name": result.name, **result.facts, "rounds": [dict(sample) for sample in result.rounds]}
            for result in found.ways
        ],
        "servers": [dict(row) for row in found.servers],
    }
