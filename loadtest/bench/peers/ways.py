"""The same texts from the gateway and from each peer, at equal concurrency, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from loadtest.bench.figures import Sample
from loadtest.bench.invariance import BOUND
from loadtest.bench.processes import ProcessTree, cpu_of_us_s
from loadtest.bench.rounds import Facts, Way
from loadtest.client import LoadError, Target
from loadtest.closed_loop import Load

SECTION = "peers"
OURS = "tritonflare"
NULL_SHARE = 0.5
"""Of the time of a measurement: the null model's answers are so many more that they need less."""
_POLL_INTERVAL_S = 0.1
_IDLE_CORES = 0.2
_SETTLES_WITHIN_S = 3.0


@dataclass(frozen=True)
class MeasuredServer:
    """A server that is measured: where it answers, and the processes that serve it."""

    name: str
    target: Target
    trees: Sequence[ProcessTree]

    @classmethod
    def of_process(cls, name: str, target: Target, pid: int) -> MeasuredServer:
        """A server of one process and those that it started."""
        return cls(name, target, [ProcessTree(pid)])

    def require_agreement(self, apart: float) -> None:
        """Raise LoadError if a score is more than BOUND, or NaN, apart from ours."""
        if not apart <= BOUND:
            raise LoadError(
                f"{self.name} computes something else: a score differs by {apart:.1e} from that of {OURS}, "
                f"and {BOUND:g} is allowed"
            )

    def cpu_s(self) -> float:
        """User and system time of all of its processes so far, in seconds."""
        return sum(tree.cpu_s() for tree in self.trees)

    def rss_bytes(self) -> int:
        """Resident memory of all of its processes; shared pages count for each."""
        return sum(tree.rss_bytes() for tree in self.trees)


@dataclass(frozen=True)
class MeasuredServers:
    """The servers with the real model, ours first, and the same with the null model in the same order."""

    real: Sequence[MeasuredServer]
    null: Sequence[MeasuredServer]


@dataclass(frozen=True)
class Scenario:
    """What all servers are asked: ``null`` tells whether their null models are."""

    texts: Sequence[str]
    connections: int
    seconds: float
    null: bool


def peer_ways(
    servers: MeasuredServers,
    load: Load,
    texts: Sequence[str],
    seconds: float,
    connections: Sequence[int],
    null_connections: Sequence[int],
) -> Iterator[Way]:
    """All servers at one number of connections, then at the next; the null models come last."""
    scenarios = [Scenario(texts, count, seconds, null=False) for count in connections]
    scenarios += [Scenario(texts, count, NULL_SHARE * seconds, null=True) for count in null_connections]
    for scenario in scenarios:
        for server in servers.null if scenario.null else servers.real:
            count = f"{scenario.connections} connection{'' if scenario.connections == 1 else 's'}"
            facts: Facts = {
                "connections": scenario.connections,
                "null": int(scenario.null),
                "server": server.name,
            }
            name = f"{'null model, ' if scenario.null else ''}{count}, {server.name}"
            yield Way(SECTION, name, partial(measure, server, load, scenario), facts)


def measure(server: MeasuredServer, load: Load, scenario: Scenario) -> Sample:
    """One measurement with the costs that `metered` adds.

    Raises:
        LoadError: the server refused a request.
    """
    return metered(
        server, partial(load, server.target, scenario.texts, scenario.connections, scenario.seconds)
    )


def metered(server: MeasuredServer, load: Callable[[], Sample]) -> Sample:
    """What ``load`` found, with ``server_cpu_s`` and ``load_cpu_s``, in seconds per 1,000 texts.

    Where ``load`` drops what is due at its end, as wrk does, ``server_cpu_s`` has the work on texts that are
    not counted: one a connection at most.
    """
    served, sent = server.cpu_s(), cpu_of_us_s()
    sample = load()
    served, sent = server.cpu_s() - served, cpu_of_us_s() - sent
    settle(server.cpu_s)
    per_thousand = 1000 / sample["texts"]
    return sample | {"server_cpu_s": served * per_thousand, "load_cpu_s": sent * per_thousand}


def settle(cpu_s: Callable[[], float], sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until a server is idle, at most 3 s.

    What the load generator had asked for when its time was over is still computed. It would take the cores of
    the server that is measured next.
    """
    before = cpu_s()
    for _ in range(round(_SETTLES_WITHIN_S / _POLL_INTERVAL_S)):
        sleep(_POLL_INTERVAL_S)
        now = cpu_s()
        if now - before < _IDLE_CORES * _POLL_INTERVAL_S:
            return
        before = now
