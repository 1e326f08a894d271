"""What to try after the gate has refused: only options that exist, and only those that can help."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Callable, Sequence

from export.build import INT8
from export.evaluation.gate import MINIMUM, SIGN, Finding
from export.plan import AUTO, ExportPlan

OWN = ", own"
"""Ends the name of a check that was made on the exporter's own sentences."""


def _down(share: float) -> str:
    return f"{math.floor(1e4 * share) / 100:g}"


def _up(value: float) -> str:
    """Rounded up to two digits, so that the value itself passes."""
    if value <= 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit) * unit:.2g}"


_LEAST = {"agreement", "kendall tau", "top text", f"{MINIMUM}accuracy", f"{MINIMUM}F1"}
"""Checks of which the smallest value found is the worst."""
_LIMITS: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy drop": ("--max-drop", _up),
    "agreement": ("--min-agreement", _down),
    "MRR drop": ("--max-drop", _up),
    "kendall tau": ("--min-tau", lambda value: f"{math.floor(1e3 * value) / 1e3:g}"),
    "top text": ("--min-top", _down),
    "neighbours": ("--max-neighbours", _up),
    f"{MINIMUM}accuracy": ("--min-accuracy", _down),
    f"{MINIMUM}F1": ("--min-f1", _down),
}
_OF_FP32 = {"agreement", "kendall tau", "top text"}
"""Least values below one half of these are no limit."""
_SHOWN_LABELS = 20


def ways_out(
    plan: ExportPlan,
    findings: Sequence[Finding],
    chosen: str,
    texts: int,
    enough: int,
    order: Sequence[str] = (),
) -> list[str]:
    """One line for each option that may help; empty if the chosen artefact passed.

    Args:
        plan: what was asked for.
        findings: the gate's findings about every artefact.
        chosen: the artefact that was to be published.
        texts: how many the gate was held on.
        enough: how many make its shares reliable.
        order: the labels in an order that fits better; empty if none does.
    """
    failed = [each for each in findings if each.artefact == chosen and not each.passed]
    if not failed:
        return []
    checks = {each.check.removesuffix(OWN) for each in failed}
    if any(check.startswith(SIGN) for check in checks):
        checks = set()  # what is wrong with the weights themselves is wrong in every scheme
    return [
        *_other_order(order),
        *_other_precisions(plan, findings, chosen),
        *_other_schemes(plan, chosen, checks),
        *_other_texts(plan, checks, texts, enough),
        *_other_limits(failed),
    ]


def _other_order(order: Sequence[str]) -> list[str]:
    if not 0 < len(order) <= _SHOWN_LABELS:
        return []
    return [f"--labels {shlex.quote(joined_labels(order))}: names the labels in the order that fits."]


def joined_labels(labels: Sequence[str]) -> str:
    """Labels as ``--labels`` takes them: one record of CSV."""
    record = io.StringIO()
    csv.writer(record, lineterminator="").writerow(labels)
    return record.getvalue()


def _other_precisions(plan: ExportPlan, findings: Sequence[Finding], chosen: str) -> list[str]:
    if plan.target == "tensorrt":
        return ["--target onnxruntime --precision fp32: without a TensorRT plan."]
    ways = []
    for name in ("fp16", "fp32"):
        own = [each for each in findings if each.artefact == name]
        if name != chosen and own and all(each.passed for each in own):
            ways.append(f"--precision {name}: it passed on the same texts.")
    return ways


def _other_schemes(plan: ExportPlan, chosen: str, checks: set[str]) -> list[str]:
    if not chosen.startswith(INT8) or plan.int8 == AUTO or checks <= {"neighbours", "neighbour flips"}:
        return []
    ways = ["--int8 auto: measures every INT8 scheme and takes the fastest that passes (not with --quick)."]
    if plan.int8 != "blocks":
        ways.insert(0, "--int8 blocks: the INT8 scheme that stays closest to FP32, and the slowest.")
    return ways


def _other_texts(plan: ExportPlan, checks: set[str], texts: int, enough: int) -> list[str]:
    if not checks & {"accuracy drop", "agreement", "p99 shift", "MRR drop", "kendall tau", "top text"}:
        return []
    if plan.examples is None:
        accuracy = " With labels, accuracy is judged in place of |Δp|." if "p99 shift" in checks else ""
        return [f"--eval FILE: judges on your own labelled texts, {enough} or more.{accuracy}"]
    if texts < enough:
        return [f"--eval FILE with {enough} texts or more: {texts} are too few for shares to be exact."]
    return []


def _other_limits(failed: Sequence[Finding]) -> list[str]:
    values: dict[str, float] = {}
    signs = [each for each in failed if each.check.startswith(SIGN)]
    for each in failed:
        if each not in signs:
            check = each.check.removesuffix(OWN)
            worst = min if check in _LEAST else max
            values[check] = worst(each.value, values.get(check, each.value))
    options = ["--allow-poor"] if signs else []
    options += [
        f"{_LIMITS[check][0]} {_LIMITS[check][1](value)}"
        for check, value in values.items()
        if check in _LIMITS and math.isfinite(value) and not (check in _OF_FP32 and value < 0.5)
    ]
    if not options or values.keys() - _LIMITS.keys():
        return []  # no option moves the other limits
    return [f"{' '.join(options)}: {'publishes' if signs else 'accepts'} it as it is."]
