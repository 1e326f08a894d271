"""The bundled checkpoint for a GPU, in both precisions, and whether its answers hold on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.checkpoint.files import sha256
from export.errors import ExportError
from export.evaluation.evaluate import evaluate
from export.evaluation.gate import DEFAULT_LIMITS, Finding, judge
from export.evaluation.invariance import InvarianceSettings
from export.evaluation.runner import Candidate
from export.plan import ExportPlan
from export.repository.inventory import Published, read_inventory
from export.repository.publish import publish_model
from export.run import ExportResult, run_export
from export.source import read_source
from export.spec import GROUP_TEXTS, GROUP_TOKENS, ensemble_name
from tools.gpu_check.job import CheckFailed, Job, Settings
from tools.gpu_check.session import DeviceSession
from tritonflare.paths import CHECKPOINT

PRECISIONS = ("fp16", "fp32")
FEW_TEXTS = 40
SHORTEST = 200
"""With fewer, the export would ask about all of its own texts as well."""
_REFERENCE = "fp32 on the CPU"


@dataclass(frozen=True)
class Budget:
    """The limits of a group, as ``--group-texts`` and ``--group-tokens`` set them."""

    texts: int
    tokens: int

    def __str__(self) -> str:
        return f"groups of at most {self.texts} texts and {self.tokens:,} tokens"


USUAL_BUDGET = Budget(GROUP_TEXTS, GROUP_TOKENS)
OTHER_BUDGETS = (Budget(128, 32768), Budget(256, 65536))
"""Twice and four times as large. On a CPU, where budgets count for nothing, the first stands for both."""


@dataclass(frozen=True)
class Model:
    """One precision of the bundled checkpoint in the repository of the checks."""

    published: Published
    graph: Path
    tokenizer: Path
    max_tokens: int


def public_name(precision: str, budget: Budget | None = None) -> str:
    """Under which name a precision is served here, with the usual or another budget.

    No other repository holds such a name.
    """
    more = "" if budget is None or budget == USUAL_BUDGET else f"-{budget.texts}x{budget.tokens}"
    return f"@gpu-check/{precision}{more}"


def served_models(settings: Settings) -> dict[str, Model]:
    """What the export has published, by precision."""
    found = {model.name: model for model in read_inventory(settings.repository)}
    models = {}
    for precision in PRECISIONS:
        published = found[public_name(precision)]
        models[precision] = Model(
            published,
            published.weights_file(settings.repository),
            published.tokenizer_file(settings.repository),
            max_tokens=512,
        )
    return models


def budget_models(settings: Settings) -> dict[Budget, Published]:
    """The copies of FP16 with other budgets, which `export` has published in a repository of their own."""
    found = {model.name: model for model in read_inventory(settings.budgets)}
    names = {budget: public_name(PRECISIONS[0], budget) for budget in OTHER_BUDGETS}
    return {budget: found[name] for budget, name in names.items() if name in found}


def export(job: Job) -> str:
    """Export the checkpoint for the target ``cuda``; its own gate runs on the CPU.

    One export builds and judges both precisions, and publishes FP16. FP32, and FP16 with other budgets, are
    published here.
    """
    settings = job.settings
    try:
        result = run_export(_plan(settings, PRECISIONS[0]), job.steps)
        for precision in PRECISIONS:
            failed = [
                each for each in judge(result.evaluation, DEFAULT_LIMITS, [precision]) if not each.passed
            ]
            if failed:
                raise CheckFailed(f"{precision.upper()}: {failed[0].found}, {failed[0].allowed}")
        job.steps.step("publishing fp32, and fp16 with other budgets")
        _publish(settings, result, settings.repository, PRECISIONS[1])
        for budget in OTHER_BUDGETS if settings.device == "cuda" else OTHER_BUDGETS[:1]:
            _publish(settings, result, settings.budgets, PRECISIONS[0], budget)
    except ExportError as error:
        raise CheckFailed(str(error).splitlines()[0]) from error
    for precision in PRECISIONS:
        found = result.evaluation.measurements[precision]
        job.row(
            precision=precision,
            megabytes=found.size / 1e6,
            accuracy=found.accuracy and found.accuracy.share,
            agreement=found.agreement.share,
        )
    return "FP16 and FP32 passed the export's gate, which runs on the CPU."


def _publish(
    settings: Settings, result: ExportResult, repository: Path, precision: str, budget: Budget = USUAL_BUDGET
) -> None:
    """Publish what the export has built beside what it published."""
    file = settings.work / "artefacts" / ensemble_name(result.model.name) / precision / "model.onnx"
    published = next(each for each in read_inventory(settings.repository) if each.name == result.model.name)
    model = replace(
        result.model,
        name=public_name(precision, budget),
        precision=precision,
        model_sha256=sha256(file),
        group_texts=budget.texts,
        group_tokens=budget.tokens,
    )
    publish_model(repository, model, file, published.tokenizer_file(settings.repository))


def _plan(settings: Settings, precision: str) -> ExportPlan:
    return ExportPlan(
        CHECKPOINT,
        settings.repository,
        settings.work / "artefacts",
        name=public_name(precision),
        target="cuda",
        precision=precision,
        examples=_examples(settings.work, SHORTEST),
        all_precisions=False,
        timing=None,
    )


def _examples(work: Path, count: int) -> Path:
    """The ``count`` shortest of the held-out texts, all of which the device is asked about later."""
    head, *lines = (CHECKPOINT / "heldout.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    few = work / "few.tsv"
    few.write_text(head + "".join(sorted(lines, key=len)[:count]), encoding="utf-8")
    return few


def gate(job: Job) -> str:
    """The export's gate once more, with the graphs on the device and FP32 on the CPU as their reference.

    Alone, padded, and in batches of all kinds: see `export.evaluation.invariance`.
    """
    device = job.settings.device
    models = served_models(job.settings)
    plan = _plan(job.settings, "fp32")
    if job.settings.short:
        plan = replace(plan, examples=_examples(job.settings.work, FEW_TEXTS))
    elif device == "cuda":
        # All of them; on a CPU the export has just judged the same graphs.
        plan = replace(plan, examples=None)
    source = read_source(plan, job.settings.work)
    candidates = {_REFERENCE: _candidate(models["fp32"], "fp32", "cpu")}
    names = {precision: f"{precision} on {device}" for precision in PRECISIONS}
    candidates |= {name: _candidate(models[each], each, device) for each, name in names.items()}
    evaluation = evaluate(
        candidates,
        source.examples,
        source.tokenizer,
        labels=source.checkpoint.labels,
        problem_type=source.checkpoint.problem_type,
        max_tokens=source.checkpoint.max_tokens,
        reference=_REFERENCE,
        invariance=InvarianceSettings(texts=4 if job.settings.short else 160 if device == "cuda" else 16),
        progress=job.steps,
    )
    findings = judge(evaluation, DEFAULT_LIMITS, list(names.values()))
    for finding in findings:
        job.row(**_row(finding))
    failed = [finding for finding in findings if not finding.passed]
    if failed:
        raise CheckFailed("; ".join(f"{each.artefact}: {each.found}, {each.allowed}" for each in failed))
    return f"{len(findings)} limits are kept on {len(source.examples.texts)} texts."


def _candidate(model: Model, precision: str, device: str) -> Candidate:
    return Candidate(
        precision, model.graph.stat().st_size, lambda _threads: DeviceSession(model.graph, device)
    )


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "artefact": finding.artefact,
        "check": finding.check,
        "value": float(finding.value),
        "limit": float(finding.limit),
        "found": finding.found,
        "allowed": finding.allowed,
        "passed": bool(finding.passed),
    }
