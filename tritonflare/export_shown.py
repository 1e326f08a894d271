"""What ``tritonflare export`` prints of its result."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonflare.paths import REPOSITORY, runnable

if TYPE_CHECKING:
    from export.evaluation.data import Examples
    from export.evaluation.evaluate import Measurement
    from export.run import ExportResult

_SHOWN_LABELS = 20


def show(result: ExportResult) -> None:
    """Print a line for each artefact that was measured."""
    evaluation = result.evaluation
    for name, found in evaluation.measurements.items():
        line = f"{name:22}{found.size / 1e6:7.1f} MB  {_quality(found)}"
        line += f"  neighbours move it by {found.invariance.largest_shift:.1e}"
        if found.speed:
            line += f"  {found.speed.grouped_per_second:.0f} texts/s ({found.speed.grouped_ratio:.2f} ×)"
        click.echo(line)
    if evaluation.host.warning and result.model.precision == "int8":
        click.echo(f"Warning: {evaluation.host.warning}", err=True)


def _quality(found: Measurement) -> str:
    """How close an artefact is to FP32, and how good it is where there are labels."""
    if found.ranking is not None:
        ranking = found.ranking
        said = f"Kendall's tau {ranking.kendall_tau:.4f}  first text {100 * ranking.top_share:6.2f} %"
        return f"{said}  MRR@10 {ranking.relevance.mrr:.4f}" if ranking.relevance else said
    said = f"agreement {100 * found.agreement.share:6.2f} %"
    return f"{said}  accuracy {100 * found.accuracy.share:.2f} %" if found.accuracy else said


def show_reading(labels: Sequence[str], examples: Examples) -> None:
    """Print how the file of ``--eval`` was read, where that may surprise."""
    if examples.by_number:
        click.echo(_order_of(labels, examples.source))
    if examples.columns:
        click.echo(
            f"{examples.source} has no labels, so accuracy was not measured, only agreement and speed. Found "
            f"were {examples.columns}; --label-column names the one with labels."
        )


def _order_of(labels: Sequence[str], file: str) -> str:
    """Describe how numbers in the examples were read; a wrong ``id2label`` is visible nowhere else."""
    order = ", ".join(f"{number} = {label}" for number, label in enumerate(labels[:_SHOWN_LABELS]))
    more = ", …" if len(labels) > _SHOWN_LABELS else ""
    return f"Numbers in {file} are read in the order of id2label ({order}{more})."


def warn(result: ExportResult, repository: Path) -> None:
    """Print doubts last, in a frame: exit code 0 means that the model is published, not that it is good."""
    if not result.doubts:
        return
    frame = "!" * 80
    name = result.model.name
    lines = [frame, f"WARNING: {name} is published, but its answers may be worth nothing."]
    for number, doubt in enumerate(result.doubts, 1):
        lines += [f"  {number}. {doubt.found}", f"     {doubt.remedy}"]
    place = "" if repository == REPOSITORY else f" --repository {shlex.quote(str(repository))}"
    lines += [f"To take it back: `tritonflare export --remove {shlex.quote(name)}{place}`", frame]
    click.secho(runnable("\n".join(lines)), err=True, fg="red", bold=True)
