"""Two runs side by side, by their shares of their own ceilings, because machines differ and are noisy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.bench.document import FORMAT
from loadtest.bench.report import TITLES, Table

WORSE = 0.10
_CONDITIONS = (
    ("environment", "cpu"),
    ("environment", "cores"),
    ("environment", "onnxruntime"),
    ("environment", "gpus"),
    ("settings", "load_generator"),
    ("settings", "precision"),
    ("settings", "device"),
    ("settings", "rounds"),
    ("settings", "seconds"),
    ("settings", "tokens"),
    ("settings", "environment"),
)


@dataclass(frozen=True)
class Change:
    """A scenario of both runs; ``before`` and ``now`` are texts/s as shares of each run's ceiling."""

    section: str
    name: str
    before: float
    now: float

    @property
    def ratio(self) -> float:
        """Above 1 it became better."""
        return self.now / self.before

    @property
    def worse(self) -> bool:
        """Whether it lost more than WORSE."""
        return self.ratio < 1 - WORSE


def read_document(file: Path) -> dict[str, Any]:
    """An earlier ``bench.json``.

    Raises:
        ValueError: it is not one, or of another format.
        OSError: it cannot be read.
    """
    document = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{file.name} is not a bench.json of format {FORMAT}")
    return document


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """What both runs measured, in the order of ``now``; without a ceiling in both there is nothing."""
    old = {(row["section"], row["name"]): row["medians"].get("of_ceiling") for row in before["ways"]}
    for row in now["ways"]:
        earlier, share = old.get((row["section"], row["name"])), row["medians"].get("of_ceiling")
        if earlier and share and row["section"] != "ceiling":
            yield Change(row["section"], row["name"], earlier, share)


def as_table(before: Mapping[str, Any], now: Mapping[str, Any]) -> Table:
    """Both shares, their ratio, and a word where it became worse; then what was not the same."""
    rows = [
        [
            f"{TITLES[change.section]}: {change.name}",
            f"{change.before:.3f}",
            f"{change.now:.3f}",
            f"{change.ratio:.2f}",
            "worse" if change.worse else "",
        ]
        for change in changes(before, now)
    ]
    for part, key in _CONDITIONS:
        old, new = (str(document[part].get(key)) for document in (before, now))
        if old != new:
            rows.append([f"measured with: {key}", old, new, "", ""])
    return Table("Shares of the ceiling, before and now", ("", "before", "now", "ratio", ""), rows)
