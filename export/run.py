"""The export from end to end: source → artefacts → evaluation → gate → model repository."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from export.artefact import Artefact
from export.build import INT8, Builder
from export.checkpoint import sha256
from export.errors import ExportError
from export.evaluation.evaluate import Evaluation, Progress, Silent, evaluate
from export.evaluation.gate import Finding, judge, require
from export.evaluation.host import describe_host
from export.evaluation.metrics import accuracy, agreement, answers
from export.evaluation.report import write_report
from export.evaluation.runner import Candidate, onnx_candidate, run_grouped
from export.evaluation.timing import TimingSettings
from export.files import only_writer
from export.plan import ExportPlan
from export.quantise.openvino import openvino_candidates
from export.repository.inventory import refuse_conflict
from export.repository.publish import publish_model
from export.source import Source, read_source
from export.spec import ServedModel, ensemble_name
from export.tensorrt.export import write_plan_kit
from export.verify import verify_fp32

_log = logging.getLogger("tritonflare.export")


@dataclass(frozen=True)
class ExportResult:
    """The published model, the artefact it was made from, and what the evaluation found.

    kit: what the plan is built from where it is served, for the target ``tensorrt``.
    """

    model: ServedModel
    artefact: str
    evaluation: Evaluation
    report: Path
    kit: Path | None = None


def run_export(plan: ExportPlan, progress: Progress | None = None) -> ExportResult:
    """Build, verify, evaluate, judge and publish; ``progress`` is told what is being done.

    Raises:
        ExportError: one of its subclasses (export.errors); the repository is as it was.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="tritonflare_export_") as work:
            return _run(plan, progress or Silent(), Path(work))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"the export stopped: {reason}. The repository is as it was.") from error


def _run(plan: ExportPlan, progress: Progress, work: Path) -> ExportResult:
    progress.step("reading the checkpoint")
    source = read_source(plan, work)
    refuse_conflict(plan.repository, source.name)
    folder = plan.artefacts / ensemble_name(source.name)
    with only_writer(folder):
        builder = Builder(plan, source, folder, describe_host().vnni is False, progress)
        builder.write_all()
        progress.step("verifying fp32")
        artefact = Artefact(builder.files["fp32"], len(source.checkpoint.labels))
        shift = verify_fp32(artefact, source.rows, source.route, source.checkpoint.problem_type)
        _log.info("fp32 is within %.1e of the reference", shift)

        evaluation = _evaluate(builder, _others(builder, work), plan.timing)
        chosen = _choose(plan, evaluation)
        if (
            INT8 + "token" in builder.files
            and chosen.startswith(INT8)
            and _failed(plan, evaluation, [chosen])
        ):
            wide = builder.write_wide(partial(_passes_quickly, builder, evaluation))
            if wide:
                evaluation, chosen = _evaluate(builder, _others(builder, work), plan.timing), wide
        progress.step("writing the report")
        report = write_report(evaluation, judge(evaluation, plan.limits), folder, _about(source), chosen)
        require(evaluation, judge(evaluation, plan.limits, [chosen]))

        progress.step("publishing")
        file = builder.files[chosen]
        model = _served(plan, source, file)
        model = publish_model(plan.repository, model, file, source.checkpoint.tokenizer_file)
        kit = None
        if plan.target == "tensorrt":
            progress.step("writing the kit for the TensorRT plan")
            kit = write_plan_kit(plan, source, model, folder)
    return ExportResult(model, chosen, evaluation, report, kit)


def _others(builder: Builder, work: Path) -> dict[str, Candidate]:
    """What is measured beside our own artefacts, and never published."""
    if not builder.plan.compare_openvino:
        return {}
    builder.progress.step("converting for OpenVINO")
    source = builder.source
    return openvino_candidates(source.route.fp32_graph("plain"), source.rows, work / "openvino")


def _evaluate(
    builder: Builder,
    others: dict[str, Candidate],
    timing: TimingSettings | None,
) -> Evaluation:
    checkpoint = builder.source.checkpoint
    candidates = {
        name: onnx_candidate(file, len(checkpoint.labels), name.partition("-")[0])
        for name, file in builder.files.items()
    }
    return evaluate(
        candidates | others,
        builder.source.examples,
        builder.source.tokenizer,
        labels=checkpoint.labels,
        problem_type=checkpoint.problem_type,
        max_tokens=checkpoint.max_tokens,
        timing=timing,
        progress=builder.progress,
    )


def _choose(plan: ExportPlan, evaluation: Evaluation) -> str:
    """The artefact to publish: of several INT8 ones the fastest that passes, else the first."""
    if plan.published != "int8":
        return plan.published
    names = [name for name in evaluation.measurements if name.startswith(INT8)]
    good = [name for name in names if not _failed(plan, evaluation, [name])]

    def speed(name: str) -> float:
        found = evaluation.measurements[name].speed
        return found.grouped_per_second if found else 0.0

    return max(good, key=speed) if good else names[0]


def _failed(plan: ExportPlan, evaluation: Evaluation, names: Collection[str]) -> list[Finding]:
    return [finding for finding in judge(evaluation, plan.limits, names) if not finding.passed]


def _passes_quickly(builder: Builder, evaluation: Evaluation, name: str) -> bool:
    """Agreement, and accuracy where there are labels: what FP32 weights can mend."""
    checkpoint, examples = builder.source.checkpoint, evaluation.examples
    limits = builder.plan.limits["int8"]
    rows = [e.ids for e in builder.source.tokenizer.encode_batch_fast(list(examples.texts))]
    artefact = Artefact(builder.files[name], len(checkpoint.labels))
    given = answers(run_grouped(artefact, rows, builder.progress.advance), checkpoint.problem_type)
    fp32 = evaluation.measurements["fp32"]
    same = agreement(given, fp32.answers)
    if examples.targets is None or fp32.accuracy is None:
        return same.share >= limits.agreement and same.p99_shift <= limits.p99_shift
    drop = fp32.accuracy.share - accuracy(given, examples.targets, checkpoint.problem_type).share
    return same.share >= limits.agreement and 100 * drop <= limits.accuracy_drop


def _about(source: Source) -> dict[str, str]:
    return {
        "name": source.name,
        "checkpoint": source.checkpoint.name,
        "weights SHA-256": source.checkpoint.weights_sha256,
    }


def _served(plan: ExportPlan, source: Source, file: Path) -> ServedModel:
    checkpoint = source.checkpoint
    return ServedModel(
        name=source.name,
        labels=checkpoint.labels,
        max_tokens=checkpoint.max_tokens,
        precision=plan.published,
        target="onnxruntime" if plan.target == "tensorrt" else plan.target,
        problem_type=checkpoint.problem_type,
        checkpoint=checkpoint.name,
        description=source.description,
        created_at=source.created_at,
        weights_sha256=checkpoint.weights_sha256,
        tokenizer_sha256=checkpoint.tokenizer_sha256,
        model_sha256=sha256(file),
        pad_id=checkpoint.pad_id,
        instances=plan.instances,
    )
