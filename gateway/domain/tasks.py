"""What models are for, and what Workers AI charges for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Task(str, Enum):
    """The use of a model; the catalogue's ``tritonflare.task``."""

    CLASSIFICATION = "classification"
    """A text in, a score for each label out."""
    RERANK = "rerank"
    """A query and contexts in, a score for each context out; the model reads pairs."""


_FORMER_NAMES = {"", "text classification"}
"""What repositories say that were exported before there were several tasks."""


def parse_task(name: str) -> Task:
    """Read the name of a task.

    Raises:
        ValueError: there is no such task.
    """
    if name.casefold().replace("-", " ") in _FORMER_NAMES:
        return Task.CLASSIFICATION
    return Task(name)


@dataclass(frozen=True, slots=True)
class Price:
    """What Workers AI charges for a million input tokens (its pricing page, 2026)."""

    dollars: float
    neurons: float

    def of(self, tokens: int) -> float:
        """Return the price of so many tokens in neurons."""
        return tokens * self.neurons / 1_000_000


PRICES = {
    Task.CLASSIFICATION: Price(dollars=0.0263, neurons=2394),
    # The page rounds to 283; recorded answers are charged with this.
    Task.RERANK: Price(dollars=0.00311, neurons=282.6288),
}
