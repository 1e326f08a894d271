"""Writes summary.json, summary.md and the plots of a run, and judges whether it passed."""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from loadtest.options import LoadOptions
from loadtest.plots import PLOTS, write_plots
from loadtest.protocols.base import ServingProtocol
from loadtest.record import Record
from loadtest.summary import as_markdown, summarise
from loadtest.verdict import complaints

_log = logging.getLogger(__name__)
_HOW = "Thresholds and their figures are in summary.md; the tables below are locust's own."


class Reported(Protocol):
    """What the report needs of a run."""

    @property
    def options(self) -> LoadOptions:
        """As asked for."""

    @property
    def host(self) -> str:
        """The server."""

    @property
    def stopped_after_s(self) -> float | None:
        """Seconds under load, if it was ended early."""

    protocol: ServingProtocol
    record: Record
    truth: str
    generators: int


def remove_report(folder: Path, page: Path | None = None) -> None:
    """Remove what ``write_report`` wrote into ``folder`` earlier, and locust's ``page``.

    A run that never starts would leave the verdict of the one before. The references stay: a later run may be
    held against them.
    """
    for file in (*(folder / name for name in ("summary.json", "summary.md", *PLOTS)), page):
        if file is not None:
            file.unlink(missing_ok=True)


def write_report(run: Reported, page: Path | None = None) -> bool:
    """Write the files into the output folder, and the verdict into locust's ``page``.

    Returns:
        Whether all thresholds are kept.
    """
    options = run.options
    about = {
        "host": run.host,
        "protocol": run.protocol.description,
        "model": options.model,
        "traffic": options.traffic,
        "loop": options.loop,
        "shape": options.shape,
        "duration_s": options.duration,
        "stopped_after_s": run.stopped_after_s,
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
    if page is not None and page.is_file():
        page.write_text(_with_verdict(page.read_text(encoding="utf-8"), summary), encoding="utf-8")
    for complaint in found:
        _log.error("failed: %s", complaint)
    if found:
        _log.error("failed; report in %s", folder)
    else:
        _log.info("passed: %.0f good answers/s, report in %s", summary["good_per_s"], folder)
    return not found


def _with_verdict(page: str, summary: Mapping[str, Any]) -> str:
    """Locust's page with the verdict at its top; the page as it is where it has no such top."""
    before, top, after = page.rpartition("<body>")
    lines = "".join(f"<li>{html.escape(one)}</li>" for one in summary["complaints"])
    colour, word = ("#1b6e2d", "Passed") if summary["passed"] else ("#a61b1b", "Failed")
    verdict = (
        f'<section id="verdict" style="margin:0;padding:1rem 1.5rem;background:{colour};color:#fff;'
        f'font:1rem/1.5 sans-serif"><strong>{word}.</strong> {html.escape(_HOW)}<ul>{lines}</ul></section>'
    )
    return f"{before}{top}{verdict}{after}" if top else page
