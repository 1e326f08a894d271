"""The same texts from the gateway and from each peer, at equal concurrency, in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from loadtest.bench.figures import Sample
from loadtest.bench.processes import ProcessTree
from loadtest.bench.rounds import Way
from loadtest.client import Target
from loadtest.closed_loop import Load

SECTION = "peers"
OURS = "tritonflare"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Contender:
    """A server that is measured: where its real or its null model answers, and the processes that serve it."""

    name: str
    target: Target
    trees: Sequence[ProcessTree]

    def measure(self, ask: Load, texts: Sequence[str], connections: int, seconds: float) -> Sample:
        """One measurement, with ``server_cpu_s`` per 1,000 texts."""
        before = sum(tree.cpu_s() for tree in self.trees)
        sample = ask(self.target, texts, connections, seconds)
        used = sum(tree.cpu_s() for tree in self.trees) - before
        return sample | {"server_cpu_s": 1000 * used / sample["texts"]}


@dataclass(frozen=True)
class Contenders:
    """The servers with the real model, ours first, and the same with the null model."""

    real: Sequence[Contender]
    null: Sequence[Contender]


def peer_ways(
    contenders: Contenders,
    ask: Load,
    texts: Sequence[str],
    seconds: float,
    connections: Sequence[int],
    null_connections: Sequence[int],
) -> Iterator[Way]:
    """All servers at one number of connections, then at the next; the null models come last."""
    for null, servers, counts in ((0, contenders.real, connections), (1, contenders.null, null_connections)):
        for count in counts:
            for server in servers:
                name = f"{server.name}, {'null model, ' if null else ''}{count} connections"
                measure: Callable[[], Sample] = partial(server.measure, ask, texts, count, seconds)
                facts = {"connections": count, "null": null, "server": servers.index(server)}
                yield Way(SECTION, name, measure, facts)


def servers_of(rows: Sequence[Row]) -> list[str]:
    """The names of the servers in these rows, ours first."""
    first = [row for row in rows if row["facts"]["connections"] == rows[0]["facts"]["connections"]]
    return [row["name"].partition(", null model")[0].rpartition(", ")[0] or row["name"] for row in first]


def comparison(rows: Sequence[Row]) -> Iterator[list[str]]:
    """A line for each number of connections: texts/s of each server, and ours as a share of the best peer."""
    for count in dict.fromkeys(row["facts"]["connections"] for row in rows):
        ours, *peers = (row for row in rows if row["facts"]["connections"] == count)
        cells = [f"{row['medians']['rate']:.0f} ({_spread(row)})" for row in (ours, *peers)]
        yield [str(count), *cells, f"{share_of_best(ours, peers):.2f}", f"{_tail(ours):.1f}"]


def share_of_best(ours: Row, peers: Sequence[Row]) -> float:
    """Our rate over that of the peer with the best median; round by round, then the median."""
    best = max(peers, key=lambda row: float(row["medians"]["rate"]))
    pairs = zip(ours["rounds"], best["rounds"], strict=True)
    return statistics.median(one["rate"] / other["rate"] for one, other in pairs)


def _spread(row: Row) -> str:
    rates = [sample["rate"] for sample in row["rounds"]]
    return f"{min(rates):.0f}–{max(rates):.0f}"


def _tail(row: Row) -> float:
    return float(row["medians"]["p99_ms"] / row["medians"]["p50_ms"])
