"""The record of a run as one JSON document, and as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest.arrivals import mean_level
from loadtest.checks import OK
from loadtest.record import CALIBRATION, Histogram, Record, Second, total
from loadtest.tables import markdown_table

FORMAT = 1
UNANSWERED = "unanswered"
_SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def summarise(
    record: Record, about: Mapping[str, Any], rate: float | None = None, generators: int | None = None
) -> dict[str, Any]:
    """Make the document of ``record``; ``about`` (loop, shape, duration_s, …) is put first.

    Args:
        record: what happened.
        about: what was asked for; it needs ``shape`` and ``duration_s``, and ``stopped_after_s`` if the
            load ended early.
        rate: requests a second set for the open loop; None if it measured the rate itself.
        generators: processes that were to send the open loop; None of a closed one.
    """
    everything = total(record.seconds.values())
    if rate is None:
        rate = record.facts["asked_milli"] / 1000
    due = sum(one.due for (_, kind), one in record.seconds.items() if kind != CALIBRATION)
    errors = errors_of(everything)
    duration = about.get("stopped_after_s") or about["duration_s"]
    good = len(everything.good)
    kinds = sorted({kind for _, kind in record.seconds})
    return {
        "format": FORMAT,
        **about,
        "capacity_per_s": _rounded(record.facts["capacity"]) or None,
        # By the options and the shape; ``wanted`` is what the generators came to, which random arrivals vary.
        "asked_per_s": _rounded(rate * mean_level(about["shape"])) or None,
        "wanted_per_s": _rounded(due / duration),
        "good_per_s": _rounded(good / duration),
        "texts_per_s": _rounded(everything.texts / duration),
        "requests": {"due": everything.due, "good": good, "errors": sum(errors.values())},
        "errors": errors,
        "latency_ms": percentiles(everything.good),
        "generator": {
            "expected": generators,
            "started": record.facts["generators"],
            "finished": record.facts["finished"],
            "late_p99_ms": _rounded(everything.late.percentile_ms(0.99)),
        },
        "kinds": {
            kind: _kind(total(one for (_, of), one in record.seconds.items() if of == kind)) for kind in kinds
        },
        "timeline": _timeline(record),
    }


def errors_of(seconds: Second) -> dict[str, int]:
    """Outcomes that are not good ones, the most frequent first; what has none by the end is unanswered."""
    errors = Counter({name: count for name, count in seconds.outcomes.items() if name != OK})
    errors[UNANSWERED] += seconds.due - seconds.outcomes.total()
    return {name: count for name, count in errors.most_common() if count > 0}


def percentiles(latencies: Histogram) -> dict[str, float | None]:
    """Percentiles in milliseconds by name; None where there is no answer."""
    return {name: _rounded(latencies.percentile_ms(share)) for name, share in _SHARES.items()}


def _kind(seconds: Second) -> dict[str, Any]:
    return {
        "due": seconds.due,
        "good": len(seconds.good),
        "errors": errors_of(seconds),
        "latency_ms": percentiles(seconds.good),
    }


def _timeline(record: Record) -> list[dict[str, Any]]:
    last = max((second for second, _ in record.seconds), default=-1)
    rows = []
    for number in range(last + 1):
        second = total(one for (at, _), one in record.seconds.items() if at == number)
        found = percentiles(second.good)
        rows.append(
            {
                "second": number,
                "due": second.due,
                "answered": record.answered[number],
                "errors": errors_of(second),
                **{f"{name}_ms": found[name] for name in ("p50", "p95", "p99")},
            }
        )
    return rows


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def read_summary(path: Path) -> dict[str, Any]:
    """Read ``summary.json``, or the one in a folder.

    Raises:
        OSError: there is none.
        ValueError: it is something else, or of another format.
    """
    file = path / "summary.json" if path.is_dir() else path
    document = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{file} is no summary of a load test of format {FORMAT}")
    return document


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader wants to know first, as names and values."""
    requests, latency = summary["requests"], summary["latency_ms"]
    rows = [
        ("server", summary["host"]),
        ("protocol", summary.get("protocol", "HTTP")),
        ("model", summary["model"]),
        ("traffic", summary["traffic"]),
        ("answers held against", summary.get("references") or "–"),
        ("load", f"{summary['loop']} loop, {summary['shape']}, {summary['duration_s']:g} s"),
        *(() if (after := summary.get("stopped_after_s")) is None else [("stopped after", f"{after:.1f} s")]),
        ("capacity found before, requests/s", number(summary["capacity_per_s"])),
        ("asked requests/s", number(summary.get("asked_per_s"))),
        ("wanted requests/s", number(summary["wanted_per_s"])),
        ("good answers/s", number(summary["good_per_s"])),
        ("texts/s", number(summary["texts_per_s"])),
        ("requests", str(requests["due"])),
        ("errors", f"{requests['errors']} ({requests['errors'] / max(1, requests['due']):.2%})"),
        *((f"errors: {name}", str(count)) for name, count in summary["errors"].items()),
        *((f"{name} ms", number(value)) for name, value in latency.items()),
        ("p99 of the load generator's own delay, ms", number(summary["generator"]["late_p99_ms"])),
        ("verdict", "passed" if summary["passed"] else "failed"),
    ]
    for kind, found in summary["kinds"].items():
        rows.append((f"{kind}: requests", str(found["due"])))
        rows.append((f"{kind}: p99 ms", number(found["latency_ms"]["p99"])))
    return rows


def number(value: float | None) -> str:
    """A figure of three digits or more; a dash for what was not measured."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The report in words: verdict, table, names of the pictures."""
    verdict = ["Passed." if summary["passed"] else "Failed:", *(f"- {one}" for one in summary["complaints"])]
    table = markdown_table(("", ""), facts(summary)).rstrip()
    pictures = [f"![]({name})" for name in summary["plots"]]
    return "\n\n".join(["# Load test", "\n".join(verdict), table, *pictures]) + "\n"
