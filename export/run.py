"""The export from end to end: source → artefacts → evaluation → gate → model repository."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from export.artefact import Artefact
from export.build import INT8, Builder
from export.checkpoint import resolve_source, sha256
from export.checkpoint.pairs import PairTokenizer
from export.errors import ExportError, first_line
from export.evaluation.data import Examples
from export.evaluation.doubts import FEWEST_TEXTS, Doubt, doubts
from export.evaluation.evaluate import Evaluation, Progress, Silent, evaluate
from export.evaluation.gate import Finding, GateLimits, judge, judge_quality, require
from export.evaluation.host import describe_host
from export.evaluation.metrics import Answers, accuracy, agreement, answers
from export.evaluation.ranking import compare_rankings
from export.evaluation.report import write_figures, write_report
from export.evaluation.runner import onnx_candidate, run_grouped
from export.evaluation.settings import TimingSettings
from export.files import only_writer, scratch_folder
from export.fingerprint import Fingerprint, fingerprint, folder_digests, hub_digests, is_hub_id
from export.plan import ExportPlan
from export.record import write_record
from export.remedies import OWN, ways_out
from export.repository.configs import as_text, ensemble_config
from export.repository.inventory import refuse_conflict
from export.repository.publish import publish_model
from export.source import Source, own_examples, read_source
from export.spec import GROUP_TEXTS, GROUP_TOKENS, INSTANCES, ServedModel, ensemble_name
from export.tensorrt.export import write_plan_graphs, write_plan_kit
from export.triton_models.windows import special_tokens
from export.verify import verify_fp32

# Checks that FP32 weights can mend; a dependence on neighbours they cannot.
MENDABLE = {"accuracy drop", "agreement", "p99 shift", "MRR drop", "kendall tau", "top text"}
ENOUGH_TEXTS = 200
_log = logging.getLogger("tritonflare.export")


@dataclass(frozen=True)
class ExportResult:
    """The published model, the artefact it was made from, and what the evaluation found.

    doubts: what speaks against the model although it passed. kit: what the plan is built from where
    it is served, for the target ``tensorrt``.
    """

    model: ServedModel
    artefact: str
    evaluation: Evaluation
    report: Path
    doubts: tuple[Doubt, ...] = ()
    kit: Path | None = None


class _Current:
    """Passes on what is being done, and knows it when something goes wrong."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.name = "beginning"

    def step(self, name: str) -> None:
        self.name = name
        self._progress.step(name)

    def advance(self, done: int, total: int) -> None:
        self._progress.advance(done, total)


def run_export(plan: ExportPlan, progress: Progress | None = None) -> ExportResult:
    """Build, verify, evaluate, judge and publish; ``progress`` is called with each step.

    Raises:
        ExportError: one of its subclasses (export.errors); the repository is as it was.
    """
    steps = _Current(progress or Silent())
    try:
        with scratch_folder() as work:
            return _run(plan, steps, work)
    except ExportError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"the export stopped: {reason}. The repository is as it was.") from error
    except Exception as error:  # torch, transformers, onnx and ONNX Runtime raise errors of any type
        kind = type(error).__name__
        raise ExportError(
            f"the export stopped while {steps.name} ({kind}: {first_line(error)}). The repository is as it "
            "was; --verbose shows where it stopped."
        ) from error


def _run(plan: ExportPlan, progress: Progress, work: Path) -> ExportResult:
    progress.step("reading the checkpoint")
    checkpoint = resolve_source(str(plan.source), plan.revision)
    # Before anything is read: what changes during the export differs from it at the next comparison.
    made_from = _fingerprint(plan, checkpoint)
    source = read_source(replace(plan, source=checkpoint), work)
    refuse_conflict(plan.repository, source.name)
    folder = plan.artefacts / ensemble_name(source.name)
    with only_writer(folder):
        saturates = plan.portable or describe_host().vnni is False
        builder = Builder(plan, source, folder, saturates, progress)
        builder.write_all()
        progress.step("verifying fp32")
        artefact = Artefact(builder.files["fp32"], len(source.checkpoint.labels))
        shift = verify_fp32(artefact, source.rows, source.route, source.checkpoint.problem_type)
        _log.info("fp32 is within %.1e of the reference", shift)

        evaluation, chosen = _assess(builder)
        findings = [*judge(evaluation, plan.limits), *_judge_quality(plan, evaluation)]
        own = _on_own_texts(builder, evaluation, chosen)
        findings += own.findings
        found = [*doubts(evaluation, chosen), *own.doubts]
        progress.step("writing the report")
        report = write_report(evaluation, findings, folder, _about(source), chosen, found)
        require(
            evaluation,
            [finding for finding in findings if finding.artefact == chosen],
            _advice(plan, findings, chosen, found, evaluation.examples),
        )
        plans = write_plan_graphs(plan, source, folder) if plan.target == "tensorrt" else {}

        progress.step("publishing")
        file = builder.files[chosen]
        model = _served(plan, source, file)
        model = publish_model(plan.repository, model, file, source.checkpoint.tokenizer_file, plan.keep)
        _write_figures(folder, model)
        kit = _write_kit(builder, model, plans) if plans else None
        result = ExportResult(model, chosen, evaluation, report, tuple(found), kit)
        if made_from is not None:
            _record(plan, result, made_from)
    return result


def _fingerprint(plan: ExportPlan, checkpoint: Path) -> Fingerprint | None:
    """What the export is made from; None if that cannot be compared, so that it is never skipped."""
    try:
        if is_hub_id(plan):
            return fingerprint(plan, hub_digests(str(plan.source), checkpoint.name))
        return fingerprint(plan, folder_digests(checkpoint))
    except (OSError, ImportError) as error:
        _log.info("this export leaves no record for --if-changed: %s", error)
        return None


def _write_figures(folder: Path, model: ServedModel) -> None:
    """Write the report for callers; the model is published already, so a failure is only logged."""
    try:
        write_figures(folder, model.digest, model.version)
    except OSError as error:
        _log.warning("%s has no report for the playground (%s).", model.name, error.strerror or error)


def _record(plan: ExportPlan, result: ExportResult, made_from: Fingerprint) -> None:
    """Write what --if-changed compares; the model is published already, so a failure is only logged."""
    config = as_text(ensemble_config(result.model))
    folder = result.report.parent
    try:
        write_record(folder, plan.repository, result.model, config, made_from, len(result.doubts), result.kit)
    except OSError as error:
        _log.warning("%s could not record its publication (%s).", result.model.name, error.strerror or error)


def _assess(builder: Builder) -> tuple[Evaluation, str]:
    """Measure everything, choose what to publish, and widen an INT8 artefact that agrees too little."""
    plan = builder.plan
    evaluation = _evaluate(builder, plan.timing)
    chosen = _choose(plan, evaluation)
    failed = {finding.check for finding in _failed(plan, evaluation, [chosen])}
    if chosen.startswith(INT8) and f"{INT8}token" in builder.files and failed and failed <= MENDABLE:
        wide = builder.write_wide(partial(_passes_quickly, builder, evaluation))
        if wide:
            again = _evaluate(builder, plan.timing, ("fp32", wide))
            found = {**evaluation.measurements, wide: again.measurements[wide]}
            return replace(evaluation, measurements=found), wide
    return evaluation, chosen


def _judge_quality(plan: ExportPlan, evaluation: Evaluation) -> list[Finding]:
    """What every artefact is worth by itself; the signs of a poor model count unless that is allowed."""
    signs = (
        {}
        if plan.allow_poor
        else {
            name: [doubt for doubt in doubts(evaluation, name) if doubt.stops]
            for name in evaluation.measurements
        }
    )
    return judge_quality(evaluation, signs, plan.min_accuracy, plan.min_f1)


@dataclass(frozen=True)
class _Own:
    """The exporter's own messages."""

    findings: Sequence[Finding] = ()
    doubts: Sequence[Doubt] = ()


def _on_own_texts(builder: Builder, evaluation: Evaluation, chosen: str) -> _Own:
    """The gate on our own sentences too, where there are too few others to tell 98 from 99 per cent."""
    if len(evaluation.examples.texts) >= ENOUGH_TEXTS:
        return _Own()
    examples = own_examples(builder.source.tokenizer)
    own = _evaluate(builder, None, ("fp32", chosen), examples)
    findings = [
        replace(each, check=f"{each.check}{OWN}", found=f"{each.found} on {examples.source}")
        for each in judge(own, builder.plan.limits, [chosen])
    ]
    # Where labels can tell, they do: a good model of spam may find none in our sentences.
    few = len(evaluation.examples.texts) < FEWEST_TEXTS
    return _Own(findings, doubts(own, chosen) if few else ())


def _advice(
    plan: ExportPlan, findings: Sequence[Finding], chosen: str, found: Sequence[Doubt], examples: Examples
) -> list[str]:
    """What to try after a refusal; what is wrong with the model itself comes first."""
    lines = [
        doubt.remedy if doubt.stops and not plan.allow_poor else f"WARNING: {doubt.found} {doubt.remedy}"
        for doubt in found
    ]
    # Numbers count in any order of names, so that another one would change nothing.
    orders = [doubt.order for doubt in found if doubt.order and not examples.by_number]
    order = orders[0] if orders else ()
    ways = ways_out(plan, findings, chosen, len(examples.texts), ENOUGH_TEXTS, order)
    return [*lines, "What may help:", *(f"  {way}" for way in ways)] if ways else lines


def _write_kit(builder: Builder, model: ServedModel, plans: dict[str, Path]) -> Path:
    builder.progress.step("writing the kit for the TensorRT plan")
    try:
        return write_plan_kit(builder.plan, builder.source, model, plans, builder.folder)
    except ExportError:
        raise
    except Exception as error:  # not `run_export`'s message: something was published
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ExportError(
            f"{model.name} is published for ONNX Runtime, but the kit for its TensorRT plan could not be "
            f"written: {reason}. Export again when that is mended."
        ) from error


def _evaluate(
    builder: Builder,
    timing: TimingSettings | None,
    names: Collection[str] | None = None,
    examples: Examples | None = None,
) -> Evaluation:
    checkpoint = builder.source.checkpoint
    candidates = {
        name: onnx_candidate(file, len(checkpoint.labels), name.partition("-")[0])
        for name, file in builder.files.items()
        if names is None or name in names
    }
    return evaluate(
        candidates,
        examples or builder.source.examples,
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
    artefact = Artefact(builder.files[name], len(checkpoint.labels))
    logits = run_grouped(artefact, builder.source.example_rows, builder.progress.advance)
    given = answers(logits, checkpoint.problem_type)
    fp32 = evaluation.measurements["fp32"]
    if fp32.ranking is not None:
        return ranks_alike(given, evaluation, limits)
    same = agreement(given, fp32.answers)
    if examples.targets is None or fp32.accuracy is None:
        return same.share >= limits.agreement and same.p99_shift <= limits.p99_shift
    drop = fp32.accuracy.share - accuracy(given, examples.targets, checkpoint.problem_type).share
    return same.share >= limits.agreement and 100 * drop <= limits.accuracy_drop


def ranks_alike(given: Answers, evaluation: Evaluation, limits: GateLimits) -> bool:
    """Whether a reranker's answers order texts like FP32's, and score them like it, within the limits."""
    fp32, examples = evaluation.measurements["fp32"], evaluation.examples
    relevant = None if examples.targets is None else examples.targets[:, 0]
    wanted = fp32.answers.scores[:, 0]
    found = compare_rankings(given.scores[:, 0], wanted, examples.groups, relevant)
    if agreement(given, fp32.answers).p99_shift > limits.p99_shift:
        return False
    if found.relevance and fp32.ranking and fp32.ranking.relevance:
        drop = fp32.ranking.relevance.mrr - found.relevance.mrr
        if 100 * drop > limits.accuracy_drop:
            return False
    return found.kendall_tau >= limits.kendall_tau and found.top_share >= limits.top


def _about(source: Source) -> dict[str, str]:
    return {
        "name": source.name,
        "task": source.checkpoint.task,
        "checkpoint": source.checkpoint.name,
        "weights SHA-256": source.checkpoint.weights_sha256,
    }


def _served(plan: ExportPlan, source: Source, file: Path) -> ServedModel:
    checkpoint, tokenizer = source.checkpoint, source.tokenizer
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
        instances=plan.instances or INSTANCES[plan.target],
        task=checkpoint.task,
        token_types=checkpoint.token_types,
        aliases=plan.aliases,
        layout=plan.layout,
        group_texts=plan.group_texts or GROUP_TEXTS,
        group_tokens=plan.group_tokens or GROUP_TOKENS,
        special_tokens=None if isinstance(tokenizer, PairTokenizer) else special_tokens(tokenizer),
    )
