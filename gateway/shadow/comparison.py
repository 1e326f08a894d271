"""How two answers to one text differ."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.scores import Score, best_first
from gateway.domain.service import Classification


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the shadow's answer differs from the one that the caller got."""

    agrees: bool
    """Whether both have the same best label."""
    shift: float | None
    """The shadow's score of the caller's best label, minus the caller's, -1 to 1; None without this label."""


def compare(answer: Classification, shadow: Classification) -> Comparison:
    """Compare two answers by the names of their labels; their order does not matter."""
    label, score = _best(answer)
    other = dict(shadow.scores).get(label)
    return Comparison(_best(shadow)[0] == label, None if other is None else other - score)


def _best(answer: Classification) -> Score:
    return best_first(answer.scores)[0]
