"""Writes summary.json, summary.md and the plots of a run, and says whether it passed."""

from __future__ import annotations

import json
import logging
from typing import Protocol

from loadtest.options import LoadOptions
from loadtest.plots import write_plots
from loadtest.record import Record
from loadtest.summary import as_markdown, summarise
from loadtest.verdict import complaints

_log = logging.getLogger(__name__)


class Reported(Protocol):
    """What the report needs of a run."""

    @property
    def options(self) -> LoadOptions:
        """As asked for."""

    @property
    def host(self) -> str:
        """The server."""

    record: Record
    truth: str
    generators: int


def write_report(run: Reported) -> bool:
    """Write the files into the output folder; whether all thresholds are kept."""
    options = run.options
    about = {
        "host": run.host,
        "model": options.model,
        "traffic": options.traffic,
        "loop": options.loop,
        "shape": options.shape,
        "duration_s": options.duration,
        "arrivals": options.arrivals,
        "load": options.load if options.rate is None else None,
        "tolerance": options.tolerance,
        "references": run.truth,
    }
    open_loop = options.loop == "open"
    summary = summarise(
        run.record,
        about,
        rate=options.rate if open_loop else None,
        generators=run.generators if open_loop else None,
    )
    found = complaints(summary, options.limits)
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    plots = [file.name for file in write_plots(summary, folder)]
    summary |= {"passed": not found, "complaints": found, "plots": plots}
    text = json.dumps(summary, ensure_ascii=False, allow_nan=False, indent=1)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(as_markdown(summary), encoding="utf-8")
    for complaint in found:
        _log.error("failed: %s", complaint)
    if not found:
        _log.info("passed: %.0f good answers/s, report in %s", summary["good_per_s"], folder)
    return not found
