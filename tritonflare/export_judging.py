"""Options of ``tritonflare export`` that say how a model is judged."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from export.evaluation.gate import GateLimits

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _names(given: str | None) -> tuple[str, ...]:
    """One record of CSV, so that a name in quotation marks may hold a comma."""
    if given is None:
        return ()
    try:
        (record,) = csv.reader([given], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise click.BadParameter("give names with commas between them, e.g. bad,neutral,good.") from error
    return tuple(name.strip() for name in record)


_OPTIONS = (
    click.option(
        "--eval",
        "examples",
        type=click.Path(path_type=Path, exists=True),
        help="CSV, TSV or JSONL with text and perhaps label, for a reranker with query, text and perhaps "
        "label (0 or 1) [default: heldout.tsv beside the checkpoint].",
    ),
    click.option(
        "--text-column",
        default="text",
        show_default=True,
        metavar="NAME",
        help="Column, or key, of the texts in the file of --eval.",
    ),
    click.option(
        "--label-column",
        metavar="NAME",
        help="Column, or key, of the labels in it [default: label, where it is there; without labels "
        "accuracy is not measured].",
    ),
    click.option(
        "--labels",
        callback=lambda _context, _option, given: _names(given),
        metavar="NAMES",
        help="Names of the labels in the order of the model's scores, for a checkpoint whose config.json "
        "says LABEL_0 or names them wrongly, e.g. bad,neutral,good.",
    ),
    click.option(
        "--min-accuracy",
        type=click.FloatRange(1, 100),
        help="Gate: texts that must be right, in per cent, e.g. 85; needs labels [default: no limit].",
    ),
    click.option(
        "--min-f1",
        type=click.FloatRange(1, 100),
        help="Gate: least mean F1 of the labels (macro), in per cent; needs labels [default: no limit].",
    ),
    click.option(
        "--allow-poor",
        is_flag=True,
        help="Publish, with a warning, a model that is no better than its commonest label, gives one label "
        "to nearly all texts, or fits better with its labels in another order.",
    ),
    click.option(
        "--max-drop", type=click.FloatRange(0), help="Gate: accuracy, or MRR@10, that may be lost, in points."
    ),
    click.option(
        "--min-agreement",
        type=click.FloatRange(50, 100),
        help="Gate: labels as in FP32, in per cent, e.g. 98.5.",
    ),
    click.option(
        "--min-tau",
        type=click.FloatRange(-1, 1),
        help="Gate of rerankers: mean Kendall's tau between the order of a query's texts and FP32's "
        "[default: 0.999 fp32, 0.98 fp16, 0.9 int8].",
    ),
    click.option(
        "--min-top",
        type=click.FloatRange(0, 100),
        help="Gate of rerankers: queries whose first text is FP32's, in per cent "
        "[default: 99.9 fp32, 98 fp16, 90 int8].",
    ),
    click.option("--max-neighbours", type=click.FloatRange(0), help="Gate: |Δp| that neighbours may cause."),
)


def judging_options(command: _Command) -> _Command:
    """Add the options to a command, in the order in which its help lists them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def judging(
    max_drop: float | None,
    min_agreement: float | None,
    min_tau: float | None,
    min_top: float | None,
    max_neighbours: float | None,
    min_accuracy: float | None,
    min_f1: float | None,
    **others: Any,
) -> dict[str, Any]:
    """What the options mean as fields of an `export.plan.ExportPlan`; others stay as they are."""
    limits = _limits(
        accuracy_drop=max_drop,
        agreement=min_agreement and min_agreement / 100,
        kendall_tau=min_tau,
        top=None if min_top is None else min_top / 100,
        neighbours=max_neighbours,
    )
    return {
        "limits": limits,
        "min_accuracy": min_accuracy and min_accuracy / 100,
        "min_f1": min_f1 and min_f1 / 100,
        **others,
    }


def _limits(**values: float | None) -> Mapping[str, GateLimits]:
    """Return the gate's limits; a given one replaces the default of every precision."""
    from export.evaluation.gate import DEFAULT_LIMITS

    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return {precision: replace(limits, **given) for precision, limits in DEFAULT_LIMITS.items()}
