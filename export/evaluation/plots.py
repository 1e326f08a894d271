"""The report's pictures, from the report's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

# Okabe and Ito's colours are distinct for colour-blind readers; markers repeat the distinction.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"
LINES = ("-", "--", "-.", ":")
Artefacts = Mapping[str, Mapping[str, Any]]


def write_plots(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write PNG files and return them; those about speed only if time was taken.

    Args:
        report: the document of ``report.as_document``.
        folder: where they go; it exists.
    """
    artefacts: Artefacts = report["artefacts"]
    files = []
    if report["settings"]["timing"] is not None:
        files.append(_save(_accuracy_against_speed(report), folder / "accuracy-speed.png"))
        files.append(_save(_speed_by_length(report), folder / "speed-by-length.png"))
    if len(artefacts) > 1:
        figure = _shift_histogram(report)
        files.append(_save(figure, folder / "probability-shift.png"))
    if report["artefacts"][report["reference"]]["quality"] is not None:
        files.append(_save(_calibration(report), folder / "calibration.png"))
    return files


def _save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=130)
    return file


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    # Not pyplot: it keeps every figure alive in a global list and wants a display.
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _styles(artefacts: Artefacts) -> Iterator[tuple[str, Mapping[str, Any], str, str, str]]:
    looks = zip(cycle(COLOURS), cycle(MARKERS), cycle(LINES), strict=False)
    for (name, found), (colour, marker, line) in zip(artefacts.items(), looks, strict=False):
        yield name, found, colour, marker, line


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _noun(report: Mapping[str, Any]) -> str:
    return "pairs" if report["examples"]["queries"] else "texts"


def _quality(report: Mapping[str, Any]) -> tuple[str, Callable[[Mapping[str, Any]], float]]:
    """What stands for an artefact's quality, and how it is read from the report."""
    reference = report["reference"]
    ranking = report["artefacts"][reference]["ranking"]
    if ranking is not None and ranking["relevance"] is not None:
        return "MRR@10", lambda found: float(found["ranking"]["relevance"]["mrr"])
    if ranking is not None:
        return f"Kendall's tau with {reference}", lambda found: float(found["ranking"]["kendall_tau"])
    if report["examples"]["labelled"]:
        return "Accuracy", lambda found: float(found["accuracy"]["share"])
    return f"Agreement with {reference}", lambda found: float(found["agreement"]["share"])


def _accuracy_against_speed(report: Mapping[str, Any]) -> Figure:
    what, share_of = _quality(report)
    figure, axes = _figure(
        f"{what} against speed, one thread",
        f"{_noun(report)} per second, groups of like length",
        f"{what} (%)",
    )
    shares: list[float] = []
    for name, found, colour, marker, _ in _styles(report["artefacts"]):
        share = share_of(found)
        speed = found["speed"]["grouped_per_second"]
        shares.append(100 * share)
        # Hollow, so that artefacts in the same place are all seen.
        (point,) = axes.plot(speed, 100 * share, marker, color=colour, label=name)
        point.set(markersize=10, markeredgewidth=2, fillstyle="none")
    axes.set_xlim(left=0, right=1.1 * axes.get_xlim()[1])
    # At least a point high: else a difference of one text would fill the picture.
    middle, reach = (max(shares) + min(shares)) / 2, max(0.5, 0.6 * (max(shares) - min(shares)))
    axes.set_ylim(middle - reach, middle + reach)
    _legend(axes)
    return figure


def _speed_by_length(report: Mapping[str, Any]) -> Figure:
    unit = _noun(report).removesuffix("s")
    figure, axes = _figure(
        f"Speed by length, one {unit} a run, one thread", "tokens", f"milliseconds per {unit}"
    )
    lengths: list[int] = []
    for name, found, colour, marker, line in _styles(report["artefacts"]):
        lengths = [int(length) for length in found["speed"]["ms_by_length"]]
        times = list(found["speed"]["ms_by_length"].values())
        axes.plot(lengths, times, marker=marker, color=colour, linestyle=line, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    _legend(axes)
    return figure


def _shift_histogram(report: Mapping[str, Any]) -> Figure:
    edges, reference = report["shift_histogram_edges"], report["reference"]
    noun = _noun(report)
    figure, axes = _figure(
        f"How far scores are from {reference}",
        f"|Δp| of a {noun.removesuffix('s')}'s most moved label (below {edges[0]:g}: first bin)",
        noun,
    )
    for name, found, colour, _, line in _styles(report["artefacts"]):
        if name != reference:
            counts = found["agreement"]["shift_histogram"]
            axes.stairs(counts, edges, color=colour, linestyle=line, linewidth=2, label=name)
    axes.set_xscale("log")
    _legend(axes)
    return figure


def _calibration(report: Mapping[str, Any]) -> Figure:
    figure, axes = _figure("Calibration", "mean confidence of the decisions in a bin", "share that is right")
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, label="perfect")
    for name, found, colour, marker, line in _styles(report["artefacts"]):
        bins = found["quality"]["calibration"]
        axes.plot(
            [each["confidence"] for each in bins],
            [each["right"] for each in bins],
            marker=marker,
            color=colour,
            linestyle=line,
            label=name,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    _legend(axes)
    return figure
