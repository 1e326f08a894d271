"""Which models answer: written by calls and canaries, read by the monitor."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from gateway.domain.catalogue import Model


class ModelHealth:
    """A model is healthy once it has answered any text.

    It stays so until a canary fails, a canary has waited for too long while no text was answered, or a call
    finds no server available.

    Args:
        canary_max_age_s: how long canaries may wait while the model answers no text.
        clock: seconds that never go back.
    """

    def __init__(self, canary_max_age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._canary_max_age_s = canary_max_age_s
        self._clock = clock
        self._answered_at: dict[Model, float] = {}
        """The last answer of each model that is not known to fail."""
        self._asked_at: dict[Model, float] = {}
        """Since when canaries have waited for a model that has answered no text meanwhile."""

    def is_healthy(self, model: Model) -> bool:
        """Whether the model answers."""
        asked_at = self._asked_at.get(model)
        is_late = asked_at is not None and self._clock() - asked_at >= self._canary_max_age_s
        return model in self._answered_at and not is_late

    def answered(self, model: Model) -> None:
        """Note an answer to any text; it counts for a canary that still waits."""
        self._answered_at[model] = self._clock()
        self._asked_at.pop(model, None)

    def unavailable(self, model: Model) -> None:
        """Note that a call found no server for the model, or that a canary failed.

        The next answer, to a caller or to a canary, makes the model healthy again.
        """
        self._answered_at.pop(model, None)

    def all_unavailable(self) -> None:
        """Note that nothing is known of any model."""
        self._answered_at.clear()

    def canary_sent(self, model: Model) -> None:
        """Note that a canary begins to wait."""
        if model in self._answered_at:
            self._asked_at.setdefault(model, self._clock())
        else:
            self._asked_at[model] = self._clock()

    def by_need(self, models: Collection[Model]) -> tuple[list[Model], list[Model]]:
        """Return the models that do not answer, and the others; in both, those without news first."""
        # A model behind one that always fails must have its turn, too.
        silent = sorted(
            (model for model in models if model not in self._answered_at),
            key=lambda model: self._asked_at.get(model, 0.0),
        )
        others = sorted(
            (model for model in models if model in self._answered_at),
            key=lambda model: self._answered_at[model],
        )
        return silent, others

    def keep(self, models: Collection[Model]) -> None:
        """Forget all models but these."""
        self._answered_at = {model: at for model, at in self._answered_at.items() if model in models}
        self._asked_at = {model: at for model, at in self._asked_at.items() if model in models}
