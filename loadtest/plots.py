"""Pictures of a run: latency over time, throughput against latency, errors by code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PLOTS = ("latency.png", "throughput.png", "errors.png")
_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")


def write_plots(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw ``PLOTS`` into ``folder``."""
    timeline = summary["timeline"]
    files = []
    for name, draw in zip(PLOTS, (_latency, _throughput, _errors), strict=True):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        draw(figure.add_subplot(), timeline)
        files.append(folder / name)
        figure.savefig(files[-1], dpi=120)
    return files


def write_side_by_side(summaries: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Draw latency over time and throughput against latency of each run, on the same scales."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots(2, len(summaries), squeeze=False, sharex="row", sharey="row")
    for column, (name, summary) in enumerate(summaries.items()):
        _latency(axes[0][column], summary["timeline"])
        _throughput(axes[1][column], summary["timeline"])
        axes[0][column].set_title(name)
    figure.savefig(file, dpi=120)


def _latency(axes: Axes, timeline: Sequence[Mapping[str, Any]]) -> None:
    for name in _PERCENTILES:
        rows = [row for row in timeline if row[name] is not None]
        axes.plot(
            [row["second"] for row in rows], [row[name] for row in rows], label=name.removesuffix("_ms")
        )
    axes.set(xlabel="second of the intended arrival", ylabel="ms from the intended arrival", ylim=(0, None))
    if timeline:
        axes.legend()
    axes.grid(alpha=0.3)


def _throughput(axes: Axes, timeline: Sequence[Mapping[str, Any]]) -> None:
    rows = [row for row in timeline if row["p99_ms"] is not None]
    for name in _PERCENTILES:
        axes.scatter(
            [row["answered"] for row in rows],
            [row[name] for row in rows],
            s=12,
            label=name.removesuffix("_ms"),
        )
    axes.set(xlabel="good answers in a second", ylabel="ms of that second's arrivals", ylim=(0, None))
    if rows:
        axes.legend()
    axes.grid(alpha=0.3)


def _errors(axes: Axes, timeline: Sequence[Mapping[str, Any]]) -> None:
    seconds = [row["second"] for row in timeline]
    names = sorted({name for row in timeline for name in row["errors"]})
    if names:
        axes.stackplot(
            seconds, [[row["errors"].get(name, 0) for row in timeline] for name in names], labels=names
        )
        axes.legend()
    else:
        axes.text(0.5, 0.5, "no errors", transform=axes.transAxes, ha="center")
    axes.plot(seconds, [row["due"] for row in timeline], color="black", linewidth=0.8)
    axes.set(xlabel="second of the intended arrival", ylabel="errors; line: requests due", ylim=(0, None))
    axes.grid(alpha=0.3)
