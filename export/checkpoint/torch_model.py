"""Architectures that only transformers can read: the model itself, and what is found out by asking it.

torch and transformers are imported inside the functions: nothing of serving, and no export of a
family that is written here, may need them.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.checkpoint.config import Config, tokens_limit
from export.errors import CheckpointError, first_line

_log = logging.getLogger("tritonflare.export")

DEFAULT_LIMIT = 512
"""Tokens, where neither the model nor its tokenizer knows a limit."""
# More than any model takes: a value below it in a tokenizer's config is a limit, and not "no limit".
_NO_LIMIT = 1_000_000
_NO_MEMORY = ("allocate memory", "out of memory")


@dataclass(frozen=True)
class TorchModel:
    """A model of transformers in FP32.

    positions: as many as its config names, which need not be what it takes (`longest_input`); None
    if it has no table of them. vocabulary: rows of the word embeddings. pad_id: None if it has none.
    token_types: how many it tells apart; 0 if it reads none.
    """

    model: Any
    positions: int | None
    vocabulary: int
    pad_id: int | None
    token_types: int = 0


def load_torch_model(folder: Path, config: Config, labels: Sequence[str]) -> TorchModel:
    """Read a folder with transformers.

    Raises:
        CheckpointError: it cannot, or some weights are missing, of another shape or not finite.
    """
    model = _read(folder, config, labels)
    positions = getattr(model.config, "max_position_embeddings", None)  # -1 for XLNet
    vocabulary = getattr(model.config, "vocab_size", None)
    try:
        vocabulary = model.get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError) as error:
        if not isinstance(vocabulary, int):
            raise CheckpointError(
                f"{config.name} is a {config.family!r} model, which has no word embeddings; it cannot be "
                "exported."
            ) from error
    pad_id = getattr(model.config, "pad_token_id", None)
    known = isinstance(positions, int) and positions > 0
    types = getattr(model.config, "type_vocab_size", None)
    reads = isinstance(types, int) and "token_type_ids" in inspect.signature(model.forward).parameters
    return TorchModel(
        model, positions if known else None, int(vocabulary), pad_id, int(types or 0) if reads else 0
    )


def _read(folder: Path, config: Config, labels: Sequence[str]) -> Any:
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    try:
        with without_noise():
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                str(folder),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
            )
    except Exception as error:  # transformers raises errors of any type on malformed files
        raise CheckpointError(f"transformers cannot read {config.name} ({first_line(error)}).") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{config.name} has no tensor {missing[0]!r}; it is no trained text classifier."
        )
    _refuse_other_shapes(config, info["mismatched_keys"], len(labels))
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise CheckpointError(f"{config.name}: tensor {name!r} holds numbers that are not finite.")
    if model.config.num_labels != len(labels):
        raise config.other_labels(model.config.num_labels, len(labels))
    return model.eval()


def _refuse_other_shapes(config: Config, found: Sequence[tuple[str, Any, Any]], labels: int) -> None:
    for name, stored, wanted in sorted(found):
        # The last layer is the one whose rows are labels.
        if wanted[0] == labels != stored[0] and tuple(wanted[1:]) == tuple(stored[1:]):
            raise config.other_labels(stored[0], labels)
        raise CheckpointError(
            f"{config.name}: tensor {name!r} has shape {list(stored)} where its config asks for "
            f"{list(wanted)}."
        )


def longest_input(folder: Path, config: Config, model: TorchModel, tokenizer: Tokenizer, pad_id: int) -> int:
    """The most tokens that the model takes, special tokens included, found by asking it.

    Its config alone does not tell: RoBERTa's relatives count positions from ``pad_id + 1``, so that
    two rows of their table are unused. A text of the limit is tried first, so that most models
    are asked once.

    Args:
        folder: its tokenizer_config.json may name a smaller limit.
        config: the checkpoint's.
        model: what is asked.
        tokenizer: gives the special tokens around a text.
        pad_id: the padding token, which the text must not hold.

    Raises:
        CheckpointError: it takes no text at all, or there is too little memory for one.
    """
    most = tokens_limit(folder, model.positions or _NO_LIMIT)
    if most == _NO_LIMIT:
        most = DEFAULT_LIMIT
        _log.warning(
            "%s names no limit: texts are cut after %d tokens; model_max_length in tokenizer_config.json "
            "sets another limit", config.name, most,
        )  # fmt: skip
    row_of = _rows(config, model, tokenizer, pad_id)
    fewest = len(row_of(0)) + 1
    found, failure = _search(
        lambda length: _failure(config, model.model, row_of(length)),
        fewest,
        most,
        [most - pad_id - 1, most - pad_id],
    )
    if failure and found < fewest:
        raise CheckpointError(
            f"{config.name}, a {config.family!r} model, cannot score a text ({first_line(failure)})."
        )
    if found < most - pad_id - 1:
        _log.warning("%s takes %d tokens, though its config names %d", config.name, found, most)
    return found


def _search(
    failure_at: Callable[[int], Exception | None], fewest: int, most: int, guesses: list[int]
) -> tuple[int, Exception | None]:
    """The greatest length without a failure, ``fewest - 1`` if there is none, and the last failure."""
    failure = None if fewest > most else failure_at(most)
    if failure is None:
        return most, None
    low, high = fewest - 1, most  # the one does, or is too short; the other does not
    while high - low > 1:
        middle = guesses.pop(0) if guesses else (low + high) // 2
        if low < middle < high:
            found = failure_at(middle)
            low, high, failure = (middle, high, failure) if found is None else (low, middle, found)
    return low, failure


def _rows(config: Config, model: TorchModel, tokenizer: Tokenizer, pad_id: int) -> Callable[[int], list[int]]:
    """Makes the token ids of a text of any length: its special tokens around one word again and again."""
    try:
        encoding = tokenizer.encode("This pizza is great!")
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(
            f"the tokenizer of {config.name} cannot encode a text ({first_line(error)})."
        ) from error
    places = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    start, end = (places[0], places[-1] + 1) if places else (len(encoding.ids), len(encoding.ids))
    words = [*encoding.ids[start:end], *range(pad_id + 2)]
    word = next(each for each in words if each != pad_id)
    before, after = encoding.ids[:start], encoding.ids[end:]
    largest = max([word, *before, *after])
    if largest >= model.vocabulary:
        raise CheckpointError(
            f"{config.name}: the tokenizer gives token id {largest}, the model knows {model.vocabulary}; "
            "they do not belong together."
        )
    return lambda length: [*before, *[word] * (length - len(before) - len(after)), *after]


def _failure(config: Config, model: Any, row: list[int]) -> Exception | None:
    """What a model raises over a text; None if it scores it."""
    import torch  # noqa: PLC0415

    try:
        with torch.no_grad(), without_noise():
            model(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.int64))
    except Exception as error:  # an index past a table, a shape that does not fit: each model has its own
        if isinstance(error, MemoryError) or any(text in str(error).lower() for text in _NO_MEMORY):
            raise CheckpointError(
                f"{config.name} takes texts of {len(row)} tokens, which need more memory than there is; "
                "set a smaller model_max_length in its tokenizer_config.json."
            ) from error
        return error
    return None


@contextmanager
def without_noise() -> Iterator[None]:
    """Warnings about third-party code do not help the user at the terminal; errors still appear."""
    import transformers  # noqa: PLC0415

    before = logging.root.manager.disable
    # Tracing logs whole graphs and the places in torch that they come from, under a dozen names.
    logging.disable(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.enable_progress_bar()
        logging.disable(before)
