"""The use case: texts in, labelled scores out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.backend import Backend, RawScores
from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, BackendFailed
from gateway.domain.scores import InvalidLogits, Score, label_scores
from gateway.domain.validate import utf8

_log = logging.getLogger("tritonflare.service")

NEURONS_PER_TOKEN = 2394 / 1_000_000
"""Price of this task on Workers AI: 2394 neurons per million input tokens (its pricing page, 2026)."""

TEXTS_PER_CALL = 16
"""Most texts of one request in one call, so that a batch is spread over the model's instances and a lone
text waits for a short call at most. A text in a call of 16 costs the gateway a tenth of a call alone."""


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


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One input of a batch and what became of it; its place in the batch is its id."""

    reference: str | None
    """The caller's name for it."""
    outcome: Classification | AiError


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
        return _read(raw, model)

    async def classify_all(
        self, model: Model, texts: Sequence[str], deadline_s: float
    ) -> list[Classification | AiError]:
        """Classify many texts, several in a call; return for each, in order, its answer or its error.

        A text is never failed by its neighbours: a call that fails is repeated for each of its texts.
        """
        encoded = [utf8(text) for text in texts]
        # Similar lengths side by side need little padding.
        order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]))
        size = min(TEXTS_PER_CALL, model.max_batch_size)
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        answered = await asyncio.gather(
            *(
                self._classify_chunk(model, [encoded[place] for place in chunk], deadline_s)
                for chunk in chunks
            )
        )
        answers = {
            place: answer
            for chunk, found in zip(chunks, answered, strict=True)
            for place, answer in zip(chunk, found, strict=True)
        }
        return [answers[place] for place in range(len(texts))]

    async def _classify_chunk(
        self, model: Model, texts: Sequence[bytes], deadline_s: float
    ) -> Sequence[Classification | AiError]:
        ends = asyncio.get_running_loop().time() + deadline_s
        try:
            raws = await self._backend.classify(model, texts, deadline_s)
        except BackendFailed as exc:
            if len(texts) == 1:
                return [exc]
            left_s = ends - asyncio.get_running_loop().time()
            alone = await asyncio.gather(*(self._classify_chunk(model, (text,), left_s) for text in texts))
            return [answer for (answer,) in alone]
        except AiError as exc:
            return [exc] * len(texts)
        return [_read_or_error(raw, model) for raw in raws]


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
    )


def _read_or_error(raw: RawScores, model: Model) -> Classification | AiError:
    try:
        return _read(raw, model)
    except AiError as exc:
        return exc
