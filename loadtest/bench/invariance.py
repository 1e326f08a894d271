"""An answer must not depend on what else is being asked: scores under load against scores alone."""

from __future__ import annotations

from collections.abc import Sequence

import uvloop

from loadtest.checks import Scores, difference, scores_of
from loadtest.client import Target
from loadtest.closed_loop import ask, classify_sequentially, starts

BOUND = 1e-4
"""Of everything that computes on a CPU."""


class Invariance:
    """Remembers every text's scores when asked alone, and compares answers under load with them.

    ``answers`` is how many were compared, ``largest`` the largest |difference| of a score, 0…1, and ``bound``
    the largest that is allowed.
    """

    def __init__(self, texts: Sequence[str], bound: float = BOUND) -> None:
        self.bound = bound
        self.answers = 0
        self.largest = 0.0
        self._texts = texts
        self._alone: list[Scores] = []

    @property
    def holds(self) -> bool:
        """Whether no score moved by more than the bound."""
        return self.largest <= self.bound

    def classify_sequentially(self, target: Target) -> None:
        """Ask every text on one connection, nothing else going on."""
        self._alone = uvloop.run(classify_sequentially(target, self._texts))

    def compare(self, target: Target, connections: int, seconds: float) -> None:
        """Full load over so many connections, every answer compared."""
        bodies: list[tuple[int, bytes]] = []
        walks = starts(len(self._texts), connections)
        uvloop.run(
            ask(target, self._texts, walks, lambda place, _, body: bodies.append((place, body)), seconds)
        )
        for place, body in bodies:
            self.answers += 1
            self.largest = max(self.largest, min(1.0, difference(scores_of(body), self._alone[place])))
