"""Ways of asking, measured in turn, round after round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from loadtest.bench.figures import Sample, medians

Facts = Mapping[str, int | str]
"""Numbers, and the names of servers."""


class Progress(Protocol):
    """Told what is going on; see tritonflare.progress.Steps."""

    def step(self, name: str) -> None:
        """A new piece of work begins."""

    def advance(self, done: int, total: int) -> None:
        """So much of it is done."""


@dataclass(frozen=True)
class Way:
    """One way of asking; ``facts`` are its numbers, such as connections, for plots and comparisons."""

    section: str
    name: str
    measure: Callable[[], Sample]
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a way gave in each round."""

    section: str
    name: str
    facts: Facts
    rounds: Sequence[Sample]

    @property
    def medians(self) -> Sample:
        """Of each figure over the rounds."""
        return medians(self.rounds)


def alternate(ways: Sequence[Way], rounds: int, progress: Progress) -> list[Result]:
    """All ways in turn, ``rounds`` times over, so that a slow minute of the machine hits them alike.

    Every other round goes backwards: what a way gains or loses by what was measured before it is not the
    same in all rounds.
    """
    found: list[list[Sample]] = [[] for _ in ways]
    turn = list(zip(ways, found, strict=True))
    for number in range(rounds):
        progress.step(f"round {number + 1} of {rounds}")
        for done, (way, samples) in enumerate(turn):
            progress.advance(done, len(turn))
            samples.append(way.measure())
        turn.reverse()
    return [
        Result(way.section, way.name, way.facts, samples) for way, samples in zip(ways, found, strict=True)
    ]
