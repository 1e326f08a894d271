"""The time lines as bars, one below the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

from loadtest.timeline.segments import SEGMENTS

_NARROW_MS = 0.25
"""A narrower segment has no number of its own in the picture."""


def draw(lines: Mapping[str, Mapping[str, float]], file: Path) -> None:
    """Draw a bar for each time line, its segments in milliseconds, into an SVG file."""
    names = [name for _, name in SEGMENTS if any(name in line for line in lines.values())]
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    figure = Figure(figsize=(10, 1.6 + 0.7 * len(lines) + 0.11 * len(names)), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(names):
        for row, line in enumerate(lines.values()):
            width = line.get(name, 0.0)
            start = sum(line.get(earlier, 0.0) for earlier in names[:number])
            colour = colours[number % len(colours)]
            axes.barh(row, width, left=start, color=colour, label=name if row == 0 else None)
            if width >= _NARROW_MS:
                axes.text(start + width / 2, row, f"{width:.2f}", ha="center", va="center", fontsize=8)
    axes.set_yticks(range(len(lines)), list(lines))
    axes.invert_yaxis()
    axes.set_xlabel("ms since the text was sent (medians of segments)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    # The same figures give the same bytes.
    with rc_context({"svg.hashsalt": "tritonflare", "svg.fonttype": "none"}):
        figure.savefig(file, metadata={"Date": None})
