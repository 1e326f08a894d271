"""What is exported: a checkpoint with its tokenizer, its card, and the texts it is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from export.card import default_name, read_card
from export.checkpoint import Checkpoint, load_checkpoint, resolve_source
from export.checkpoint.pairs import PairTokenizer
from export.checkpoint.tokenizer import load_tokenizer, token_rows
from export.compatibility import WRITTEN
from export.errors import CheckpointError, ExamplesError, ExportError
from export.evaluation.data import Columns, Examples, load_examples
from export.evaluation.pair_data import load_pairs
from export.plan import ExportPlan
from export.route import ExportRoute, route_of
from export.samples import (
    OWN_PAIRS,
    OWN_TEXTS,
    default_examples,
    default_pairs,
    own_pairs,
    own_texts,
)
from export.spec import RERANK, ensemble_name, warmup_texts


@dataclass(frozen=True)
class Source:
    """A checkpoint, ready to be exported.

    tokenizer: truncates to the model's limit and does not pad; a reranker's makes pairs. rows: token ids of
    the exporter's own texts, for verification and calibration; not those that accuracy is taken on,
    which are example_rows.
    """

    checkpoint: Checkpoint
    route: ExportRoute
    tokenizer: Tokenizer | PairTokenizer
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
    checkpoint = load_checkpoint(folder, work, plan.labels)
    if checkpoint.weights is None and plan.target == "tensorrt":
        raise ExportError(
            f"{checkpoint.name} is a {checkpoint.family!r} model; TensorRT plans are made of "
            f"{', '.join(WRITTEN.values())} only. Choose --target onnxruntime."
        )
    texts = (_pairs if checkpoint.task == RERANK else _texts)(plan, folder, checkpoint)
    _check_minima(plan, texts.examples)
    card = _card(folder, checkpoint)
    name = card["name"] if plan.name is None else plan.name
    _check_name(name)
    return Source(
        checkpoint=checkpoint,
        route=route_of(checkpoint),
        tokenizer=texts.tokenizer,
        examples=texts.examples,
        example_rows=texts.example_rows,
        rows=texts.rows,
        name=name,
        description=card["description"],
        created_at=card["created_at"],
    )


def _check_minima(plan: ExportPlan, examples: Examples) -> None:
    if plan.min_accuracy is None and plan.min_f1 is None:
        return
    if examples.queries is not None:
        raise ExportError("--min-accuracy and --min-f1 are for classifiers, and this model is a reranker.")
    if examples.targets is None:
        raise ExamplesError(
            f"--min-accuracy and --min-f1 need labelled texts, and {examples.source} has no labels; give "
            "--eval FILE with a column of labels."
        )


class _Texts(NamedTuple):
    """What `Source` takes over."""

    tokenizer: Tokenizer | PairTokenizer
    examples: Examples
    example_rows: list[list[int]]
    rows: list[list[int]]


def _texts(plan: ExportPlan, folder: Path, checkpoint: Checkpoint) -> _Texts:
    tokenizer = load_tokenizer(checkpoint.tokenizer_file, checkpoint.max_tokens)
    labels, problem_type = checkpoint.labels, checkpoint.problem_type
    if plan.examples:
        columns = Columns(plan.text_column, plan.label_column)
        examples = load_examples(plan.examples, labels, problem_type, columns)
    else:
        examples = default_examples(folder, labels, problem_type)
    example_rows = token_rows(tokenizer, examples.texts, checkpoint)
    # For its check alone: a text of which nothing is left must be one that the model can take, and so must
    # those that warm it up.
    token_rows(tokenizer, [" ", "\0", *warmup_texts(checkpoint.max_tokens).values()], checkpoint)
    return _Texts(tokenizer, examples, example_rows, token_rows(tokenizer, own_texts(), checkpoint))


def _pairs(plan: ExportPlan, folder: Path, checkpoint: Checkpoint) -> _Texts:
    tokenizer = PairTokenizer(load_tokenizer(checkpoint.tokenizer_file, checkpoint.max_tokens), checkpoint)
    own, own_rows = fitting_pairs(own_pairs(), tokenizer)
    # For its check alone, as for texts.
    warmup = warmup_texts(checkpoint.max_tokens)
    tokenizer.rows([(warmup["text"], text) for text in warmup.values()])
    if plan.examples:
        examples = load_pairs(plan.examples, Columns(plan.text_column, plan.label_column))
    else:
        examples = default_pairs(folder)
    if examples.source == OWN_PAIRS:
        return _Texts(tokenizer, own, own_rows, own_rows)
    rows = []
    for (query, _), row in zip(examples.pairs, tokenizer.rows(examples.pairs), strict=True):
        if row is None:
            raise ExamplesError(
                f"{examples.source}: the query {query[:40]!r} leaves no room for a text; the model takes "
                f"{checkpoint.max_tokens} tokens."
            )
        rows.append(row)
    # For its check alone, as for texts.
    tokenizer.rows([(" ", "\0")])
    return _Texts(tokenizer, examples, rows, own_rows)


def fitting_pairs(examples: Examples, tokenizer: PairTokenizer) -> tuple[Examples, list[list[int]]]:
    """Pairs whose query leaves room for a text, of queries with two of them or more, and their rows.

    Raises:
        CheckpointError: none is left, because the model takes too few tokens.
    """
    rows = tokenizer.rows(examples.pairs)
    kept = [
        place for group in examples.groups for place in group if rows[place] is not None and len(group) > 1
    ]
    if not kept or examples.queries is None:
        raise CheckpointError("the model takes too few tokens for a query and a text.")
    texts = tuple(examples.texts[place] for place in kept)
    queries = tuple(examples.queries[place] for place in kept)
    found = [row for row in (rows[place] for place in kept) if row is not None]
    return Examples(texts, None, examples.source, queries=queries), found


def own_examples(tokenizer: Tokenizer | PairTokenizer) -> Examples:
    """The exporter's own texts, or as many of its own pairs as have room in the model."""
    if isinstance(tokenizer, PairTokenizer):
        return fitting_pairs(own_pairs(), tokenizer)[0]
    return Examples(own_texts(), None, OWN_TEXTS)


def _check_name(name: str) -> None:
    try:
        ensemble_name(name)
    except ExportError as error:
        raise ExportError(f"{str(error).removesuffix('.')}; --name sets it.") from error


def _card(folder: Path, checkpoint: Checkpoint) -> dict[str, str]:
    """Name, description and date: those of the folder's card, with defaults for all."""
    defaults = {
        "name": default_name(checkpoint.name),
        "description": "Reranker: scores a text for a query"
        if checkpoint.task == RERANK
        else f"Text classifier with {len(checkpoint.labels)} labels",
        "created_at": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
    }
    return defaults | read_card(folder)
