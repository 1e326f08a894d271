"""Read a Hugging Face sequence classifier from a folder, without torch."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from export.checkpoint.config import Config, read_config, tokens_limit
from export.checkpoint.families import Family, why_not_written, written_family
from export.checkpoint.files import sha256
from export.checkpoint.model import Checkpoint, Encoder
from export.checkpoint.pairs import check_pairs, types_of_pairs
from export.checkpoint.tensors import Tensors, weight_files, weights_digest
from export.checkpoint.tokenizer import check_ids, check_limit, load_tokenizer, tokenizer_file
from export.checkpoint.torch_model import DEFAULT_LIMIT, TorchModel, load_torch_model, longest_input
from export.errors import CheckpointError

_log = logging.getLogger("tritonflare.export")


def load_checkpoint(folder: Path, work: Path | None = None, labels: Sequence[str] = ()) -> Checkpoint:
    """Read ``config.json``, the safetensors weights and the tokenizer of a folder.

    A model with one label is a reranker, whatever it was trained for; more labels are a classifier.

    Args:
        folder: Hugging Face layout; never written to.
        work: where a ``tokenizer.json`` goes that is not the folder's own, because it is converted or
            carries other files' options; None refuses a folder that needs it.
        labels: names in the order of the logits, instead of those of the config.

    Raises:
        CheckpointError: a file is missing or damaged, it is no classifier, or its architecture
            needs torch and torch is not installed.
    """
    config = read_config(folder)
    config.refuse_what_is_no_text_classifier()
    if labels:
        config = config.with_labels(labels)
    labels, problem_type, task = config.labels(), config.problem_type(), config.task()
    _log.info("%s: task %s, because its config names %d label(s)", config.name, task, len(labels))
    pairs = task == "rerank"
    files = weight_files(folder)
    family = written_family(config)
    weights: Encoder | None = None
    model: TorchModel | None = None
    if family:
        pad_id = config.pad_id(family.pad_id)
        weights = _weights(family, config, files, pad_id, labels)
        vocabulary, max_tokens = len(weights.words), tokens_limit(folder, len(weights.positions))
    else:
        _require_torch(config)
        model = load_torch_model(folder, config, labels)
        pad_id, vocabulary = config.pad_id(model.pad_id), model.vocabulary
        max_tokens = DEFAULT_LIMIT  # until it is asked; the tokens' side alone goes into their file
    tokens = tokenizer_file(folder, work, vocabulary, max_tokens, pairs=pairs)
    tokenizer = load_tokenizer(tokens)
    check_ids(tokenizer, config.name, vocabulary, pad_id)
    if model:
        max_tokens = longest_input(folder, config, model, tokenizer, pad_id)
    token_types = pairs and _check_pairs(folder, config, tokenizer, max_tokens, _token_types(weights, model))
    if not pairs:
        check_limit(tokenizer, config.name, max_tokens)
    if weights and not token_types:
        weights = weights.without_types()
    return Checkpoint(
        name=config.name,
        folder=folder,
        family=config.family,
        weights=weights,
        labels=labels,
        problem_type=problem_type,
        max_tokens=max_tokens,
        vocabulary=vocabulary,
        pad_id=pad_id,
        tokenizer_file=tokens,
        weights_sha256=weights_digest(files),
        tokenizer_sha256=sha256(tokens),
        torch_model=model and model.model,
        task=task,
        token_types=token_types,
    )


def _weights(
    family: Family, config: Config, files: list[Path], pad_id: int, labels: tuple[str, ...]
) -> Encoder:
    tensors = Tensors(files, family.prefix)
    encoder = family.build(config, tensors, pad_id)
    tensors.refuse_unread_layers()
    scored = encoder.classifier.weight.shape[1]
    if scored != len(labels):
        raise config.other_labels(scored, len(labels))
    if pad_id >= len(encoder.words):
        raise CheckpointError(
            f"{config.name}: config.json sets pad_token_id is {pad_id}; the model knows "
            f"{len(encoder.words)} tokens."
        )
    return encoder


def _check_pairs(folder: Path, config: Config, tokenizer: Tokenizer, max_tokens: int, types: int) -> bool:
    """Check that pairs can be tokenized; return whether the model tells their halves apart."""
    check_pairs(tokenizer, config.name, max_tokens)
    return types_of_pairs(folder, config.name, tokenizer, types)


def _token_types(weights: Encoder | None, model: TorchModel | None) -> int:
    """How many token types a model tells apart; 0 if it reads none."""
    if model:
        return model.token_types
    return 0 if weights is None or weights.types is None else len(weights.types)


def _require_torch(config: Config) -> None:
    missing = [name for name in ("torch", "transformers", "onnxscript") if not importlib.util.find_spec(name)]
    if missing:
        raise CheckpointError(
            f"{config.name} {why_not_written(config)}; install {', '.join(missing)} for it: "
            ".venv/bin/pip install -e '.[torch]'."
        )
