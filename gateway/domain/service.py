"""The use case: one text in, labelled scores out."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gateway.domain.backend import Backend
from gateway.domain.catalogue import Model
from gateway.domain.errors import BackendFailed
from gateway.domain.scores import InvalidLogits, Score, label_scores
from gateway.domain.validate import utf8

_log = logging.getLogger("tritonflare.service")

NEURONS_PER_TOKEN = 2394 / 1_000_000
"""Price of this task on Workers AI: 2394 neurons per million input tokens."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one text."""

    scores: list[Score]
    """In the order of the catalogue's labels."""
    tokens: int
    """Tokens the model read, after truncation."""
    truncated: bool
    """Whether the text had more tokens than the model reads."""

    @property
    def neurons(self) -> float:
        """The price of the call in Workers AI's unit."""
        return self.tokens * NEURONS_PER_TOKEN


class Classifier:
    """Classifies texts with a backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def classify(self, model: Model, text: str, deadline_s: float) -> Classification:
        """Classify one text.

        Raises:
            AiError: what ``Backend.classify`` raises; BackendFailed too when the logits are not finite.
        """
        (raw,) = await self._backend.classify(model, (utf8(text),), deadline_s)
        try:
            scores = label_scores(raw.logits, model.labels, model.problem_type)
        except InvalidLogits as exc:
            _log.error("model %s: %s", model.name, exc)
            raise BackendFailed from exc
        return Classification(
            scores=scores,
            tokens=min(raw.token_count, model.max_tokens),
            truncated=raw.token_count > model.max_tokens,
        )
