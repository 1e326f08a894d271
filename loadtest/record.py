"""What happened in each second, in a form that adds up over processes and machines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtest.checks import OK, WRONG

CALIBRATION = "calibration"
"""The kind of call under which wrong answers from before the load stand."""
_STEP = math.log(1.01)
_SMALLEST_S = 1e-6


class Histogram:
    """Durations in classes one per cent wide."""

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self.counts: Counter[int] = Counter(dict(counts))

    def add(self, seconds: float) -> None:
        """Count a duration in seconds; shorter than a microsecond counts as one."""
        self.counts[round(math.log(max(seconds, _SMALLEST_S)) / _STEP)] += 1

    def __iadd__(self, other: Histogram) -> Histogram:
        self.counts.update(other.counts)
        return self

    def __len__(self) -> int:
        return self.counts.total()

    def percentile_ms(self, share: float) -> float | None:
        """The duration in milliseconds of nearest rank ``share`` (0…1), to half a per cent; None of none."""
        rank = max(1, math.ceil(share * len(self)))
        seen = 0
        for place in sorted(self.counts):
            seen += self.counts[place]
            if seen >= rank:
                return math.exp(place * _STEP) * 1000
        return None


@dataclass
class Second:
    """One second of one kind of call: ``due`` arrived in it; the rest belongs to those arrivals."""

    due: int = 0
    texts: int = 0
    """Texts in good answers."""
    good: Histogram = field(default_factory=Histogram)
    """From the intended arrival to the good answer."""
    late: Histogram = field(default_factory=Histogram)
    """From the intended arrival until the generator sent it: its own delay."""
    outcomes: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Second) -> Second:
        self.due += other.due
        self.texts += other.texts
        self.good += other.good
        self.late += other.late
        self.outcomes.update(other.outcomes)
        return self


class Record:
    """Seconds by kind of call, good answers by the second in which they came, and sums of facts."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[int, str], Second] = {}
        self.answered: Counter[int] = Counter()
        self.facts: Counter[str] = Counter()
        """``generators`` that began, ``finished`` ones, the ``capacity`` that they add up to, and
        the load that they ask for because of it, ``asked_milli``, in thousandths of a request a second."""

    def at(self, time_s: float, kind: str) -> Second:
        """The second of ``time_s`` (from the beginning of the load)."""
        return self.seconds.setdefault((int(time_s), kind), Second())

    def add(self, kind: str, due_s: float, sent_s: float, done_s: float, outcome: str, texts: int) -> None:
        """Note the outcome of a call; times are seconds from the beginning of the load."""
        second = self.at(due_s, kind)
        second.late.add(sent_s - due_s)
        second.outcomes[outcome] += 1
        if outcome == OK:
            second.good.add(done_s - due_s)
            second.texts += texts
            self.answered[int(done_s)] += 1

    def calibrated(self, outcomes: Mapping[str, int], found: bool) -> None:
        """Note what was answered before the load, if it is wrong, or bad and no capacity was ``found``."""
        for outcome, count in outcomes.items():
            if outcome in WRONG or (outcome != OK and not found):
                second = self.at(0, CALIBRATION)
                second.due += count
                second.outcomes[outcome] += count

    def take(self) -> dict[str, Any]:
        """Everything since the last time, as plain lists for a message; nothing stays."""
        message = {
            "seconds": [
                [
                    *place,
                    one.due,
                    one.texts,
                    list(one.good.counts.items()),
                    list(one.late.counts.items()),
                    list(one.outcomes.items()),
                ]
                for place, one in self.seconds.items()
            ],
            "answered": list(self.answered.items()),
            "facts": list(self.facts.items()),
        }
        for taken in (self.seconds, self.answered, self.facts):
            taken.clear()
        return message

    def merge(self, message: dict[str, Any]) -> None:
        """Add what another process took."""
        for second, kind, due, texts, good, late, outcomes in message["seconds"]:
            other = Second(
                due, texts, Histogram(map(tuple, good)), Histogram(map(tuple, late)), Counter(dict(outcomes))
            )
            mine = self.at(second, kind)
            mine += other
        self.answered.update(dict(message["answered"]))
        self.facts.update(dict(message["facts"]))


def total(seconds: Iterable[Second]) -> Second:
    """The sum of some seconds."""
    result = Second()
    for second in seconds:
        result += second
    return result
