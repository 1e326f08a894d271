"""From marks to segments: what a lone text waits for, one thing after the other."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

Mark = tuple[int, str]
"""Nanoseconds of CLOCK_MONOTONIC, and what happened."""
SEGMENTS = (
    ("gateway received", "client → gateway"),
    ("gateway calls", "gateway: read, check, coalesce"),
    ("ensemble REQUEST_START", "gRPC → Triton"),
    ("step 1 COMPUTE_START", "Triton: ensemble and queue"),
    ("execute begins", "python backend → its process"),
    ("tokenized", "tokenizer"),
    ("step 2 COMPUTE_START", "tokens → Triton → encoder's queue"),
    ("second execute begins", "python backend → encoder's process"),
    ("run begins", "→ the encoder's thread"),
    ("run ends", "ONNX Runtime"),
    ("ensemble INFER_RESPONSE_COMPLETE", "logits → Triton"),
    ("gateway answered", "gRPC → gateway"),
    ("gateway rendered", "gateway: scores, JSON"),
    ("client received", "gateway → client"),
)
"""The mark that ends a segment, and what the segment is; a layout without the mark has no such segment."""


@dataclass(frozen=True)
class Asked:
    """When one text was sent and when its answer was there, in ns."""

    sent: int
    received: int


@dataclass(frozen=True)
class TimeLine:
    """What lone texts waited for, in milliseconds; medians, which do not add up exactly."""

    segments: dict[str, float]
    """By name, in their order."""
    whole: float
    """From the first byte sent to the answer received."""
    texts: int
    """How many texts had every mark of their layout; the others are left out."""


def time_line(asked: Sequence[Asked], marks: Sequence[Mark]) -> TimeLine:
    """Medians over all texts that have each mark which most texts have.

    Raises:
        ValueError: no text has them all.
    """
    ordered = sorted(marks)
    times = [at for at, _ in ordered]
    found = [
        _first_times(ordered[bisect_left(times, text.sent) : bisect_left(times, text.received)])
        | {"client received": text.received}
        for text in asked
    ]
    # Fewer have the marks of what goes on beside them, such as canaries.
    usual = [name for name, _ in SEGMENTS if sum(name in first for first in found) > len(asked) / 2]
    whole = [(text, first) for text, first in zip(asked, found, strict=True) if first.keys() >= set(usual)]
    if not whole:
        raise ValueError("no text left all marks")
    named = dict(SEGMENTS)
    lengths: dict[str, list[float]] = {named[mark]: [] for mark in usual}
    for text, first in whole:
        last = text.sent
        for mark in usual:
            # A segment that would end before the last one did is hidden behind it.
            lengths[named[mark]].append(max(first[mark] - last, 0) / 1e6)
            last = max(first[mark], last)
    return TimeLine(
        {name: statistics.median(each) for name, each in lengths.items()},
        statistics.median((text.received - text.sent) / 1e6 for text, _ in whole),
        len(whole),
    )


def _first_times(marks: Sequence[Mark]) -> dict[str, int]:
    first: dict[str, int] = {}
    for at, name in marks:
        again = name == "execute begins" and name in first
        first.setdefault("second execute begins" if again else name, at)
    return first
