"""What changes in a bench whose model computes on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from export.repository.inventory import Published
    from loadtest.bench.run import Plan

_IN_PROCESS = ("ceiling", "precision")


def for_device(plan: Plan, model: Published) -> tuple[Plan, list[str]]:
    """The plan for where the model computes, and a sentence for what it then lacks.

    What computes in this process does so on the CPU, which is no measure of a GPU. On one, FP16 may move a
    score further; the bound is that of the export's gate.

    Raises:
        click.UsageError: nothing of the plan would be left, or it has peers, which compute on the CPU.
    """
    from export.evaluation.gate import DEFAULT_LIMITS

    if about_device(plan, model).get("device") != "cuda":
        return plan, []
    if plan.peers:
        raise click.UsageError("--peers compute on the CPU; leave them out, or add --device cpu.")
    sections = [section for section in plan.sections if section not in _IN_PROCESS]
    if not sections:
        raise click.UsageError(f"--sections {','.join(_IN_PROCESS)} are for models that compute on the CPU.")
    plan = replace(plan, sections=sections, bound=DEFAULT_LIMITS[model.precision].neighbours)
    return plan, [
        "the in-process sections, which compute on the CPU; `make gpu-check` has a ceiling on the GPU"
    ]


def about_device(plan: Plan, model: Published) -> Mapping[str, str]:
    """Of a model for a GPU, where it computes; for the document."""
    if model.target != "cuda":
        return {}
    return {"device": "cpu" if plan.device == "cpu" else "cuda"}
