"""Which measurements of throughput there are, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tools.gpu_check.models import OTHER_BUDGETS, PRECISIONS, USUAL_BUDGET, Budget

SENTENCES = 0
"""Stands for real sentences in the place of a length in tokens."""
IN_PROCESS, HTTP, NULL, BUDGET = "in-process", "HTTP", "null model", "HTTP by group"
_MANY_WORKERS_FROM = 128
"""Connections from which one process of the gateway may be the limit."""


@dataclass(frozen=True)
class Grid:
    """What is measured.

    connections: over HTTP. lengths: in tokens. groups: texts of an in-process run. workers: gateway
    processes. budgets: of groups, the usual one first. budget_loads: texts and connections that each is
    tried with. rounds: how often. most_s: of a way.
    """

    connections: Sequence[int]
    lengths: Sequence[int]
    groups: Sequence[int]
    workers: Sequence[int]
    budgets: Sequence[Budget]
    budget_loads: Sequence[tuple[int, int]]
    rounds: int = 2
    most_s: float = 3.0


def grid(short: bool, cores: int, on_gpu: bool = True) -> Grid:
    """The loads of a short or a whole run; several gateway processes only where there are cores for them.

    On a CPU the budgets count for nothing: one other is tried, once, so that this is known to work.
    """
    budgets, few, once = (USUAL_BUDGET, OTHER_BUDGETS[0]), ((SENTENCES, 8),), 1
    if short:
        return Grid((8,), (16,), (8,), (1,), budgets, few, once, most_s=0.5)
    several = () if cores < 8 else (min(8, cores // 2),)
    whole = ((1, 8, 32, 128, 512), (16, 32, 64, 128, 256, 512), (1, 8, 32, USUAL_BUDGET.texts), (1, *several))
    if not on_gpu:
        return Grid(*whole, budgets, few, once)
    return Grid(*whole, (USUAL_BUDGET, *OTHER_BUDGETS), ((SENTENCES, 512), (128, 512)))


@dataclass(frozen=True)
class Way:
    """One measurement.

    tokens: SENTENCES or a length. at_once: connections, or texts a run. budget, round: of BUDGET alone.
    """

    way: str
    precision: str
    tokens: int
    at_once: int
    workers: int = 1
    budget: Budget | None = None
    round: int = 1

    def __str__(self) -> str:
        texts = "sentences" if self.tokens == SENTENCES else f"{self.tokens} tokens"
        more = f", {self.workers} gateway processes" if self.workers > 1 else ""
        if self.budget is not None:
            more += f", {self.budget}, round {self.round}"
        unit = "a run" if self.way == IN_PROCESS else "connections"
        return f"{self.way}, {self.precision}, {texts}, {self.at_once} {unit}{more}"


def ways(loads: Grid) -> Iterator[Way]:
    """All measurements, the most telling first, because the time may end before the last."""
    first = [count for count in (128, 1) if count in loads.connections] or list(loads.connections)
    rest = [count for count in loads.connections if count not in first]
    for precision in PRECISIONS:
        yield from (Way(IN_PROCESS, precision, SENTENCES, group) for group in loads.groups)
        yield from _over_http(HTTP, precision, loads)
    yield from _over_http(NULL, "", loads)
    for turn in range(1, loads.rounds + 1):
        for tokens, count in loads.budget_loads:
            yield from (Way(BUDGET, PRECISIONS[0], tokens, count, 1, each, turn) for each in loads.budgets)
    for precision in PRECISIONS:
        for tokens in loads.lengths:
            groups = [group for group in loads.groups if group > 1 and group * tokens <= USUAL_BUDGET.tokens]
            yield from (Way(IN_PROCESS, precision, tokens, group) for group in groups)
            yield from (Way(HTTP, precision, tokens, count) for count in first)
    for precision in PRECISIONS:
        for tokens in loads.lengths:
            yield from (Way(HTTP, precision, tokens, count) for count in rest)


def _over_http(way: str, precision: str, loads: Grid) -> Iterator[Way]:
    for workers in loads.workers:
        for count in loads.connections:
            if workers == 1 or count >= _MANY_WORKERS_FROM:
                yield Way(way, precision, SENTENCES, count, workers)
