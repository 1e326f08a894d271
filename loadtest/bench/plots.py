"""The bench's pictures: speed against connections, and time against tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from loadtest.bench.peers import ways as peers

# Okabe and Ito's colours are distinct for colour-blind readers; markers repeat the distinction.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"
_SERVERS = (_BLUE, _ORANGE, "#CC79A7", "#E69F00", "#56B4E9")
Rows = Sequence[Mapping[str, Any]]


def write_plots(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write PNG files of what the document holds, and return them; ``folder`` exists."""
    files = []
    for section, title in (("http", "Gateway over HTTP"), ("null", "Null model over HTTP")):
        rows = [
            row for row in document["ways"] if row["section"] == section and "connections" in row["facts"]
        ]
        if rows:
            ceiling = document["ceiling"] if section == "http" else None
            files.append(_save(_by_connections(title, rows, ceiling), folder / f"{section}.png"))
    rows = [row for row in document["ways"] if row["section"] == "length"]
    if rows:
        files.append(_save(_by_length(rows, document["length_fit"]), folder / "length.png"))
    rows = [row for row in document["ways"] if row["section"] == peers.SECTION]
    if rows:
        figure = _beside_peers(rows, document["ceiling"], document["settings"].get("tokens"))
        files.append(_save(figure, folder / "peers.png"))
    return files


def _save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=130)
    return file


def _by_connections(title: str, rows: Rows, ceiling: float | None) -> Figure:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    rate = _axes(figure, 1, title, "connections", "texts/s")
    latency = _axes(figure, 2, "Latency", "connections", "ms")
    for workers, marker in zip(sorted({row["facts"]["workers"] for row in rows}), "os^Dv", strict=False):
        mine = [row for row in rows if row["facts"]["workers"] == workers]
        x = [row["facts"]["connections"] for row in mine]
        label = f"{workers} gateway processes" if workers > 1 else "one gateway process"
        rate.plot(x, _column(mine, "rate"), color=_BLUE, marker=marker, label=label)
        latency.plot(x, _column(mine, "p50_ms"), color=_BLUE, marker=marker, label=f"p50, {label}")
        latency.plot(
            x, _column(mine, "p99_ms"), color=_ORANGE, marker=marker, linestyle="--", label=f"p99, {label}"
        )
    if ceiling is not None:
        rate.axhline(ceiling, color=_GREEN, linestyle=":", label="in-process ceiling")
    rate.set_ylim(bottom=0)
    latency.set_yscale("log")
    for axes in (rate, latency):
        _powers_of_two(axes, sorted({row["facts"]["connections"] for row in rows}))
        axes.legend(frameon=False)
    return figure


def _by_length(rows: Rows, fit: Mapping[str, float] | None) -> Figure:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    alone = [row for row in rows if row["facts"]["connections"] == 1]
    loaded = [row for row in rows if row["facts"]["connections"] != 1]
    time = _axes(figure, 1, "One connection", "tokens", "ms, p50")
    x = [row["facts"]["tokens"] for row in alone]
    time.plot(x, _column(alone, "p50_ms"), color=_BLUE, marker="o", linestyle="", label="measured")
    if fit is not None:
        line = [fit["ms_at_0"] + fit["ms_per_token"] * tokens for tokens in x]
        label = f"{fit['ms_per_token']:.3g} ms per token, R² {fit['r2']:.4f}"
        time.plot(x, line, color=_ORANGE, label=label)
    time.legend(frameon=False)
    speed = _axes(figure, 2, f"{loaded[0]['facts']['connections']} connections", "tokens", "texts/s")
    lengths = [row["facts"]["tokens"] for row in loaded]
    speed.plot(lengths, _column(loaded, "rate"), color=_BLUE, marker="o")
    speed.set_yscale("log")
    _powers_of_two(speed, lengths)
    return figure


def _beside_peers(rows: Rows, ceiling: float | None, tokens: int | None) -> Figure:
    """Texts/s of each server: the median, and bars from the slowest to the fastest round."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    if tokens is not None:
        figure.suptitle(f"Texts of about {tokens} tokens")
    for place, title in enumerate(("The same model", "Null model")):
        scenario = [row for row in rows if row["facts"]["null"] == place]
        axes = _axes(figure, place + 1, title, "connections", "texts/s")
        names = dict.fromkeys(row["facts"]["server"] for row in scenario)
        for name, color, marker in zip(names, _SERVERS, "os^Dv", strict=False):
            mine = [row for row in scenario if row["facts"]["server"] == name]
            x, y = [row["facts"]["connections"] for row in mine], _column(mine, "rate")
            rates = [[sample["rate"] for sample in row["rounds"]] for row in mine]
            below = [middle - min(each) for middle, each in zip(y, rates, strict=True)]
            above = [max(each) - middle for middle, each in zip(y, rates, strict=True)]
            axes.errorbar(x, y, [below, above], color=color, marker=marker, capsize=3, label=name)
        if place == 0 and ceiling is not None:
            axes.axhline(ceiling, color=_GREEN, linestyle=":", label="in-process ceiling")
        axes.set_ylim(bottom=0)
        _powers_of_two(axes, sorted({row["facts"]["connections"] for row in scenario}))
        axes.legend(frameon=False)
    return figure


def _axes(figure: Figure, place: int, title: str, x: str, y: str) -> Axes:
    axes = figure.add_subplot(1, 2, place, title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _powers_of_two(axes: Axes, values: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [str(value) for value in values])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _column(rows: Rows, key: str) -> list[float]:
    return [row["medians"][key] for row in rows]
