"""Long texts in overlapping windows: which windows there are, and what their answers say together.

A text is first read as any other. Only if it has more tokens than its model reads, its further windows are
asked for, so that all other texts are answered as without windows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass

from gateway.domain.backend import Answer, RawScores
from gateway.domain.catalogue import Model
from gateway.domain.coalescing.grouping import CALL_BYTES, LONG_BYTES_PER_TOKEN
from gateway.domain.errors import AiError, BackendFailed, Overloaded, without_frames
from gateway.domain.inputs import ModelInput, Window
from gateway.domain.scores import Score
from gateway.domain.tasks import Task

_log = logging.getLogger("tritonflare.service")

Classify = Callable[[Sequence[ModelInput]], Awaitable[list[Answer]]]
"""Asks the model about windows."""
Reserve = Callable[[int], AbstractContextManager[None]]
"""Takes places for windows in flight; raises Overloaded if there are too few."""


def reserve_nothing(places: int) -> AbstractContextManager[None]:
    """Take no places: for texts that are not admitted."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """See the settings of the same names."""

    window_overlap: int = 64
    """In tokens."""
    max_windows: int = 16
    """Of one text."""


DEFAULT_LIMITS = WindowLimits()


def reads_windows(model: Model) -> bool:
    """Whether long texts of a model can be read in windows."""
    return model.task is Task.CLASSIFICATION and model.special_tokens is not None


class WindowPlan:
    """The windows of long texts of one model.

    Args:
        model: one that `reads_windows`.
        limits: an overlap of more than half a window is that half, or a text of a model that reads few tokens
            would have no end of windows.
    """

    def __init__(self, model: Model, limits: WindowLimits) -> None:
        self.model = model
        self._special = model.special_tokens or 0
        own = model.max_tokens - self._special
        self._overlap = min(limits.window_overlap, own // 2)
        self._step = own - self._overlap
        self._most = limits.max_windows
        self._size = LONG_BYTES_PER_TOKEN * model.max_tokens
        self._at_once = max(1, CALL_BYTES // self._size)
        """As many windows as fit in a call: more would only take places."""

    def is_long(self, answer: Answer) -> bool:
        """Whether a text has more tokens than the model reads."""
        return isinstance(answer, RawScores) and answer.token_count > self.model.max_tokens

    def known(self, token_count: int) -> int:
        """Return how many windows a text of ``token_count`` tokens has, special ones included."""
        return 1 + max(0, math.ceil((token_count - self.model.max_tokens) / self._step))

    async def read(self, text: bytes, first: Answer, classify: Classify, reserve: Reserve) -> list[RawScores]:
        """Read a long text to its end, or as many windows as are read at most.

        Args:
            text: the text, UTF-8.
            first: its answer as an ordinary text, which is that of window 0.
            classify: answers the windows.
            reserve: called for those that are asked for together, less one: the text has a place already.
                With too few places, fewer are asked for together: a text that was admitted is not refused.

        Returns:
            The answers of its windows, from the side of the text that is kept when it is cut. If the last one
            is long (`is_long`), there are more.

        Raises:
            AiError: the first error among the answers. BackendFailed: Triton's windows do not fit together.
        """
        read = [self._checked(first)]
        # The count of a long text may be too low: Triton need not read it to its end to cut it.
        while (wanted := min(self._windows_after(read), self._most)) > len(read):
            with ExitStack() as places:
                count = _reserved(min(wanted - len(read), self._at_once), reserve, places)
                numbers = range(len(read), len(read) + count)
                answers = await classify([self._window(text, number) for number in numbers])
            read += map(self._checked, answers)
            self._check_ends(read)
        return read

    def token_count(self, read: Sequence[RawScores]) -> int:
        """Return the tokens of the text before truncation, as far as its windows tell; see `RawScores`."""
        return (len(read) - 1) * self._step + read[-1].token_count

    def weights(self, read: Sequence[RawScores]) -> list[int]:
        """Return the tokens of each window that was read, without the special ones."""
        return [min(answer.token_count, self.model.max_tokens) - self._special for answer in read]

    def _checked(self, answer: Answer) -> RawScores:
        if isinstance(answer, AiError):
            raise answer
        if answer.token_count <= self._special:
            _log.error("model %s: a window has no tokens", self.model.name)
            raise BackendFailed
        return answer

    def _check_ends(self, read: Sequence[RawScores]) -> None:
        """Check that all windows but the first, which is an ordinary text, count tokens up to the same one.

        They do not where the text was cut by another tokenizer meanwhile, or by one that has no windows.

        Raises:
            BackendFailed: they do not.
        """
        ends = {number * self._step + answer.token_count for number, answer in enumerate(read[1:])}
        if len(ends) > 1:
            _log.error("model %s: the windows of a text do not fit together", self.model.name)
            raise BackendFailed

    def _windows_after(self, read: Sequence[RawScores]) -> int:
        """Return how many windows there are, as far as the last one of those that were read tells."""
        return len(read) - 1 + self.known(read[-1].token_count)

    def _window(self, text: bytes, number: int) -> Window:
        return Window(text, number, self._overlap, self._most, self._size)


def _reserved(wanted: int, reserve: Reserve, places: ExitStack) -> int:
    """Take places for windows of one text until ``places`` is closed; return how many windows have one."""
    while wanted > 1:
        try:
            places.enter_context(reserve(wanted - 1))
        except Overloaded as exc:
            without_frames(exc)
            wanted //= 2
        else:
            return wanted
    return 1


def combine(scores: Sequence[Sequence[Score]], weights: Sequence[int]) -> list[Score]:
    """Return the weighted mean of each label's probabilities; all windows have the labels in one order."""
    total = sum(weights)
    return [
        (of_label[0][0], math.fsum(map(_times, weights, of_label)) / total)
        for of_label in zip(*scores, strict=True)
    ]


def _times(weight: int, score: Score) -> float:
    return weight * score[1]
