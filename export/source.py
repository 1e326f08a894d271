"""What is exported: a checkpoint with its tokenizer, its card, and the texts it is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tokenizers import Tokenizer

from export.card import default_name, read_card
from export.checkpoint import Checkpoint, load_checkpoint, resolve_source
from export.checkpoint.tokenizer import load_tokenizer, token_rows
from export.compatibility import WRITTEN
from export.errors import ExportError
from export.evaluation.data import Examples, load_examples
from export.plan import ExportPlan
from export.route import ExportRoute, route_of
from export.samples import default_examples, own_texts
from export.spec import ensemble_name


@dataclass(frozen=True)
class Source:
    """A checkpoint, ready to be exported.

    tokenizer: truncates to the model's limit and does not pad. rows: token ids of the
    exporter's own texts, for verification and calibration; not those that accuracy is taken on,
    which are example_rows.
    """

    checkpoint: Checkpoint
    route: ExportRoute
    tokenizer: Tokenizer
    examples: Examples
    example_rows: list[list[int]]
    rows: list[list[int]]
    name: str
    description: str
    created_at: str


def read_source(plan: ExportPlan, work: Path) -> Source:
    """Read everything that an export starts from.

    Args:
        plan: gives checkpoint, name and labelled texts.
        work: a folder for a tokenizer that is not served as it lies there.

    Raises:
        ExportError: the checkpoint, its tokenizer, its card or the labelled texts cannot be used.
    """
    folder = resolve_source(str(plan.source), plan.revision)
    checkpoint = load_checkpoint(folder, work)
    if checkpoint.weights is None and plan.target == "tensorrt":
        raise ExportError(
            f"{checkpoint.name} is a {checkpoint.family!r} model; TensorRT plans are made of "
            f"{', '.join(WRITTEN.values())} only. Choose --target onnxruntime."
        )
    tokenizer = load_tokenizer(checkpoint.tokenizer_file, checkpoint.max_tokens)
    labels, problem_type = checkpoint.labels, checkpoint.problem_type
    if plan.examples:
        examples = load_examples(plan.examples, labels, problem_type)
    else:
        examples = default_examples(folder, labels, problem_type)
    example_rows = token_rows(tokenizer, examples.texts, checkpoint)
    # For its check alone: a text of which nothing is left must be one that the model can take.
    token_rows(tokenizer, [" ", "\0"], checkpoint)
    card = _card(folder, checkpoint)
    name = card["name"] if plan.name is None else plan.name
    _check_name(name)
    return Source(
        checkpoint=checkpoint,
        route=route_of(checkpoint),
        tokenizer=tokenizer,
        examples=examples,
        example_rows=example_rows,
        rows=token_rows(tokenizer, own_texts(), checkpoint),
        name=name,
        description=card["description"],
        created_at=card["created_at"],
    )


def _check_name(name: str) -> None:
    try:
        ensemble_name(name)
    except ExportError as error:
        raise ExportError(f"{str(error).removesuffix('.')}; --name sets it.") from error


def _card(folder: Path, checkpoint: Checkpoint) -> dict[str, str]:
    """Name, description and date: those of the folder's card, with defaults for all."""
    defaults = {
        "name": default_name(checkpoint.name),
        "description": f"Text classifier with {len(checkpoint.labels)} labels",
        "created_at": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
    }
    return defaults | read_card(folder)
