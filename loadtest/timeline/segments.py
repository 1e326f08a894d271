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


def segments(asked: Sequence[Asked], marks: Sequence[Mark]) -> dict[str, float]:
    """Median milliseconds of each segment over all texts that have all of its marks, in their order."""
    ordered = sorted(marks)
    times = [at for at, _ in ordered]
    found: dict[str, list[float]] = {}
    for text in asked:
        inside = ordered[bisect_left(times, text.sent) : bisect_left(times, text.received)]
        first = _first_times(inside) | {"client received": text.received}
        last = text.sent
        for mark, name in SEGMENTS:
            # A segment that would end before the last one did is hidden behind it.
            if mark in first:
                found.setdefault(name, []).append(max(first[mark] - last, 0) / 1e6)
                last = max(first[mark], last)
    # Marks of what happens beside lone texts, such as canaries, are no segment of them.
    return {name: statistics.median(found[name]) for _, name in SEGMENTS if _common(found, name, len(asked))}


def _first_times(marks: Sequence[Mark]) -> dict[str, int]:
    first: dict[str, int] = {}
    for at, name in marks:
        again = name == "execute begins" and name in first
        first.setdefault("second execute begins" if again else name, at)
    return first


def _common(found: dict[str, list[float]], name: str, texts: int) -> bool:
    return len(found.get(name, ())) > texts / 2
