"""Writes the measured part of docs/capacity.md from a ``bench.json``.

python -m tools.capacity_doc [.cache/bench/bench.json]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tritonflare.paths import BENCH

PAGE = Path("docs/capacity.md")
BEGIN, END = "<!-- measured: made by tools.capacity_doc -->", "<!-- end of what was measured -->"
EXAMPLE_TEXTS_A_SECOND = 2000
UTILISATION = 0.6
Row = Mapping[str, Any]


def measured(document: Mapping[str, Any]) -> str:
    """The part between the marks: the machine, the tables, and the example that follows from them.

    Args:
        document: a ``bench.json`` with the sections ``http``, ``null`` and ``length``.

    Raises:
        ValueError: one of them is missing.
    """
    environment, settings = document["environment"], document["settings"]
    cores = environment["cores"]
    rows = {section: _rows(document, section) for section in ("http", "null", "length")}
    lines = [
        f"{environment['cpu']}, {cores} cores, {settings['precision'].upper()}, "
        f"ONNX Runtime {environment['packages']['onnxruntime']}; {settings['rounds']} rounds of "
        f"{settings['seconds']:g} s. The load generator ran on the same cores.",
        "",
        *_mix("Held-out sentences", rows["http"]),
        "",
        *_mix("The same behind a model that answers a constant", rows["null"]),
        "",
        *_lengths(rows["length"], cores),
        "",
        _example(rows["http"]),
    ]
    return "\n".join(lines)


def replaced(page: str, part: str) -> str:
    """The page with ``part`` between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{part}\n{END}{after}"


def _rows(document: Mapping[str, Any], section: str) -> list[Row]:
    found = [row for row in document["ways"] if row["section"] == section]
    if not found:
        raise ValueError(f"bench.json has no section {section}: run the bench with it")
    return found


def _mix(title: str, rows: Sequence[Row]) -> Iterator[str]:
    yield f"| {title} | texts/s | p50 ms | texts a call | CPU ms a text: gateway | Triton |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        median = row["medians"]
        if "gateway_cpu_s" in median and "connections" in row["facts"]:
            yield (
                f"| {row['name']} | {median['rate']:,.0f} | {median['p50_ms']:.1f} | "
                f"{median['call_texts']:.1f} | {median['gateway_cpu_s']:.3f} | {median['triton_cpu_s']:.3f} |"
            )


def _lengths(rows: Sequence[Row], cores: int) -> Iterator[str]:
    """What a text of each length takes of a core, gateway and client included."""
    most = max(row["facts"]["connections"] for row in rows)
    yield f"| tokens, {most} connections | texts/s | core ms a text, everything included |"
    yield "|---|---|---|"
    for row in rows:
        if row["facts"]["connections"] == most:
            rate = row["medians"]["rate"]
            yield f"| {row['facts']['tokens']} | {rate:,.0f} | {1000 * cores / rate:.2f} |"


def _example(rows: Sequence[Row]) -> str:
    """Cores for the mix, by the formula of the page."""
    busiest = max(rows, key=lambda row: row["facts"]["connections"])
    triton, gateway = (busiest["medians"][f"{name}_cpu_s"] for name in ("triton", "gateway"))
    needed = [math.ceil(EXAMPLE_TEXTS_A_SECOND * ms / 1000 / UTILISATION) for ms in (triton, gateway)]
    return (
        f"**Example, CPU.** {EXAMPLE_TEXTS_A_SECOND:,} such sentences a second, {UTILISATION:.0%} used, "
        f"costs of {busiest['name']}: {EXAMPLE_TEXTS_A_SECOND:,} × {triton:.3g} ms / {UTILISATION} = "
        f"**{needed[0]} cores for Triton** ({math.ceil(needed[0] / 4)} pods of four), and "
        f"{EXAMPLE_TEXTS_A_SECOND:,} × {gateway:.3g} ms / {UTILISATION} = **{needed[1]} for gateways**."
    )


def main(arguments: Sequence[str]) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description="Put the figures of a bench into docs/capacity.md.")
    parser.add_argument("bench", nargs="?", type=Path, default=BENCH / "bench.json", help="a bench.json")
    source: Path = parser.parse_args(arguments).bench
    if not source.is_file():
        parser.error(f"there is no {source.name}; run `make bench` first")
    document = json.loads(source.read_text(encoding="utf-8"))
    page = replaced(PAGE.read_text(encoding="utf-8"), measured(document))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
