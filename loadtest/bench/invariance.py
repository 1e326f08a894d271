"""An answer must not depend on what else is being asked: scores under load against scores alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

from loadtest.bench.raw_client import ask, starts
from loadtest.bench.target import Target

BOUND = 1e-4


class Invariance:
    """Remembers every text's scores when asked alone, and compares answers under load with them.

    ``answers`` is how many were compared, ``largest`` the largest |difference| of a score.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.answers = 0
        self.largest = 0.0
        self._texts = texts
        self._alone: list[dict[str, float]] = []

    @property
    def holds(self) -> bool:
        """Whether no score moved by more than BOUND."""
        return self.largest <= BOUND

    def ask_alone(self, target: Target) -> None:
        """Ask every text on one connection, nothing else going on."""
        found: dict[int, dict[str, float]] = {}
        ask(
            target,
            self._texts,
            [range(len(self._texts))],
            lambda place, _latency, body: found.update({place: read_scores(body)}),
        )
        self._alone = [found[place] for place in range(len(self._texts))]

    def compare(self, target: Target, connections: int, seconds: float) -> None:
        """Full load over so many connections, every answer compared."""
        bodies: list[tuple[int, bytes]] = []
        ask(
            target,
            self._texts,
            starts(len(self._texts), connections),
            lambda place, _latency, body: bodies.append((place, body)),
            seconds,
        )
        for place, body in bodies:
            self.answers += 1
            self.largest = max(self.largest, difference(self._alone[place], read_scores(body)))


def read_scores(body: bytes) -> dict[str, float]:
    """Label → score of one answer of the run route."""
    return {entry["label"]: entry["score"] for entry in json.loads(body)["result"]}


def difference(one: dict[str, float], other: dict[str, float]) -> float:
    """The largest |difference| of a label's score; 1 if the labels are not the same."""
    if one.keys() != other.keys():
        return 1.0
    return max(abs(one[label] - other[label]) for label in one)
