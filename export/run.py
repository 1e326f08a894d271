"""The export from end to end: checkpoint → artefacts → verification → model repository."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.artefact import Artefact
from export.checkpoint import Checkpoint, load_checkpoint, sha256
from export.errors import CheckpointError, ExportError
from export.evaluation.data import Examples, load_examples
from export.evaluation.evaluate import Evaluation, Progress, Silent, evaluate
from export.evaluation.gate import DEFAULT_LIMITS, Limits, judge, require
from export.evaluation.report import write_report
from export.evaluation.runner import onnx_candidate
from export.evaluation.timing import TimingSettings
from export.files import only_writer, write_atomically
from export.graph.encoder import PRECISIONS, build_graph
from export.repository.inventory import refuse_conflict
from export.repository.publish import publish_model
from export.samples import default_examples, own_texts
from export.spec import ServedModel, ensemble_name
from export.verify import verify_fp32

CARD = "tritonflare.json"
_log = logging.getLogger("tritonflare.export")


@dataclass(frozen=True)
class ExportPlan:
    """What to export and where it goes."""

    source: Path
    repository: Path
    artefacts: Path
    precisions: tuple[str, ...] = PRECISIONS
    served: str = "int8"
    name: str | None = None
    examples: Path | None = None
    limits: Mapping[str, Limits] = field(default_factory=lambda: DEFAULT_LIMITS)
    timing: TimingSettings | None = field(default_factory=TimingSettings)

    def __post_init__(self) -> None:
        if self.served not in self.precisions:
            raise ExportError(f"{self.served} is to be served but not among {', '.join(self.precisions)}.")


@dataclass(frozen=True)
class ExportResult:
    """The published model and what the evaluation of each artefact found."""

    model: ServedModel
    evaluation: Evaluation
    report: Path


def run_export(plan: ExportPlan, progress: Progress | None = None) -> ExportResult:
    """Build, verify, evaluate and publish; ``progress`` is told what is being done.

    Raises:
        ExportError: one of its subclasses (export.errors); the repository is as it was.
    """
    try:
        return _run(plan, progress or Silent())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"the export stopped: {reason}. The repository is as it was.") from error


def _run(plan: ExportPlan, progress: Progress) -> ExportResult:
    progress.step("reading the checkpoint")
    checkpoint = load_checkpoint(plan.source)
    tokenizer = _tokenizer(checkpoint)
    labels, problem_type = checkpoint.labels, checkpoint.problem_type
    examples = (
        load_examples(plan.examples, labels, problem_type)
        if plan.examples
        else default_examples(plan.source, labels, problem_type)
    )
    card = _card(plan, checkpoint)
    refuse_conflict(plan.repository, card["name"])
    artefacts = plan.artefacts / ensemble_name(card["name"])
    with only_writer(artefacts):
        return _build(plan, checkpoint, tokenizer, examples, card, artefacts, progress)


def _build(
    plan: ExportPlan,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    examples: Examples,
    card: dict[str, Any],
    artefacts: Path,
    progress: Progress,
) -> ExportResult:
    labels, problem_type = checkpoint.labels, checkpoint.problem_type
    files: dict[str, Path] = {}
    # FP32 first whatever was asked for: the others are compared with it.
    for precision in ("fp32", *(p for p in plan.precisions if p != "fp32")):
        progress.step(f"writing {precision}")
        file = files[precision] = artefacts / precision / "1" / "model.onnx"
        write_atomically(
            file, build_graph(checkpoint.encoder, precision).SerializeToString(deterministic=True)
        )
    progress.step("verifying fp32")
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(own_texts()))]
    shift = verify_fp32(Artefact(files["fp32"], len(labels)), rows, checkpoint)
    _log.info("fp32 is within %.1e of the reference", shift)

    evaluation = evaluate(
        {precision: onnx_candidate(file, len(labels), precision) for precision, file in files.items()},
        examples,
        tokenizer,
        labels=labels,
        problem_type=problem_type,
        max_tokens=checkpoint.max_tokens,
        timing=plan.timing,
        progress=progress,
    )
    findings = judge(evaluation, plan.limits)
    about = {
        "name": card["name"],
        "checkpoint": checkpoint.folder.resolve().name,
        "weights SHA-256": checkpoint.weights_sha256,
    }
    progress.step("writing the report")
    report = write_report(evaluation, findings, artefacts, about)[1]
    require(evaluation, findings)

    progress.step("publishing")
    file = files[plan.served]
    served = _served(plan, checkpoint, card, file)
    model = publish_model(plan.repository, served, file, checkpoint.folder / "tokenizer.json")
    return ExportResult(model, evaluation, report)


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(f"{checkpoint.folder.name}/tokenizer.json cannot be read: {error}") from error
    vocabulary, rows = tokenizer.get_vocab_size(), checkpoint.encoder.words.shape[0]
    if vocabulary > rows:
        raise CheckpointError(f"the tokenizer knows {vocabulary} tokens, the model only {rows}.")
    tokenizer.no_padding()
    tokenizer.enable_truncation(checkpoint.max_tokens)
    return tokenizer


def _card(plan: ExportPlan, checkpoint: Checkpoint) -> dict[str, Any]:
    """Name, description and date from the folder's ``tritonflare.json``, with defaults for all."""
    card = {
        "name": f"@local/{checkpoint.folder.resolve().name}",
        "description": f"Text classifier with {len(checkpoint.labels)} labels",
        "created_at": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
    }
    file = plan.source / CARD
    if file.is_file():
        try:
            card.update(json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise CheckpointError(f"{plan.source.name}/{CARD} is not a JSON object: {error}") from error
    if plan.name:
        card["name"] = plan.name
    return card


def _served(plan: ExportPlan, checkpoint: Checkpoint, card: dict[str, Any], file: Path) -> ServedModel:
    return ServedModel(
        name=card["name"],
        labels=checkpoint.labels,
        max_tokens=checkpoint.max_tokens,
        precision=plan.served,
        target="cpu",
        problem_type=checkpoint.problem_type,
        checkpoint=checkpoint.folder.resolve().name,
        description=card["description"],
        created_at=card["created_at"],
        weights_sha256=checkpoint.weights_sha256,
        tokenizer_sha256=checkpoint.tokenizer_sha256,
        model_sha256=sha256(file),
        pad_id=_pad_id(checkpoint),
    )


def _pad_id(checkpoint: Checkpoint) -> int:
    config = json.loads((checkpoint.folder / "config.json").read_text(encoding="utf-8"))
    return int(config.get("pad_token_id") or 0)
