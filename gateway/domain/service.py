"""The use case: texts in, labelled scores out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.domain.backend import AnswerSource, RawScores, Timing
from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, BackendFailed, without_frames
from gateway.domain.scores import InvalidLogits, Score, label_scores
from gateway.domain.validate import utf8

_log = logging.getLogger("tritonflare.service")

NEURONS_PER_TOKEN = 2394 / 1_000_000
"""Price of this task on Workers AI: 2394 neurons per million input tokens (its pricing page, 2026)."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one text."""

    scores: list[Score]
    """In the order of the catalogue's labels."""
    tokens: int
    """Tokens the model read, after truncation."""
    truncated: bool
    """Whether the text had more tokens than the model reads."""
    logits: tuple[float, ...] = ()
    """The model's output, in the order of the labels."""
    token_count: int = 0
    """Tokens of the text before truncation; see `RawScores`."""
    cached: bool | None = None
    """Whether the answer is from the cache; None without a cache."""
    timing: Timing | None = field(default=None, compare=False)
    """None if nothing was sent for this request."""

    @property
    def neurons(self) -> float:
        """The price of the call in Workers AI's unit."""
        return self.tokens * NEURONS_PER_TOKEN


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One input of a batch and its outcome; its index in the batch is its id."""

    reference: str | None
    """The caller's name for it."""
    outcome: Classification | AiError


class Classifier:
    """Classifies texts with the answers of a source: the coalescer, or the cache in front of it."""

    def __init__(self, source: AnswerSource) -> None:
        self._source = source

    async def classify(self, model: Model, text: str, deadline_s: float) -> Classification:
        """Classify one text.

        Raises:
            AiError: what ``Backend.classify`` raises; BackendFailed too when the logits are not finite.
        """
        (answer,) = await self._source.classify(model, (utf8(text),), deadline_s)
        if isinstance(answer, AiError):
            raise answer
        return _read(answer, model)

    async def classify_all(
        self, model: Model, texts: Sequence[str], deadline_s: float
    ) -> list[Classification | AiError]:
        """Classify many texts; return for each, in order, its answer or its error."""
        answers = await self._source.classify(model, [utf8(text) for text in texts], deadline_s)
        return [
            answer if isinstance(answer, AiError) else _read_or_error(answer, model) for answer in answers
        ]


def _read(raw: RawScores, model: Model) -> Classification:
    try:
        scores = label_scores(raw.logits, model.labels, model.problem_type)
    except InvalidLogits as exc:
        _log.error("model %s: %s", model.name, exc)
        raise BackendFailed from exc
    return Classification(
        scores=scores,
        tokens=min(raw.token_count, model.max_tokens),
        truncated=raw.token_count > model.max_tokens,
        logits=raw.logits,
        token_count=raw.token_count,
        cached=raw.cached,
        timing=raw.timing,
    )


def _read_or_error(raw: RawScores, model: Model) -> Classification | AiError:
    try:
        return _read(raw, model)
    except AiError as exc:
        return without_frames(exc)
