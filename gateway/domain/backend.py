"""What the domain asks of an inference server, and how texts get their answers from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gateway.domain.catalogue import Ensemble, Model
from gateway.domain.errors import AiError
from gateway.domain.inputs import ModelInput

QUERY_TOO_LONG = -1
"""Token count of a pair whose query alone leaves no room for its text."""


class Timing(NamedTuple):
    """Where the time of one text went, in seconds."""

    queue_s: float
    """From its arrival until it was sent."""
    triton_s: float
    """From then until its answer arrived; a call that was repeated counts in full."""


@dataclass(slots=True)
class RawScores:
    """The model's output for one input."""

    logits: tuple[float, ...]
    """One for each label, in the order of the model's labels; not checked to be finite."""
    token_count: int
    """Tokens of the input before truncation, special tokens included.

    Above the model's limit it is a lower bound: a long text need not be read to its end. `QUERY_TOO_LONG` if
    there are no logits because of the query.
    """
    cached: bool | None = None
    """Whether it was computed earlier, for another request; None without a cache."""
    timing: Timing | None = field(default=None, compare=False, repr=False)
    """None if nothing was sent for this request."""


Answer = RawScores | AiError
"""The outcome for one text."""


class Backend(Protocol):
    """An inference server. Every method raises only members of the tree in ``errors``."""

    async def discover(self) -> Sequence[Ensemble]:
        """List the ensembles that are ready now.

        Raises:
            BackendUnavailable: the server is away.
            DeadlineExceeded: it did not answer in time.
        """
        ...

    async def classify(
        self, model: Model, texts: Sequence[ModelInput], deadline_s: float
    ) -> Sequence[RawScores]:
        """Run the model on ``texts``, in one call, and return as many answers in the same order.

        Raises:
            BackendUnavailable: the server is away, or does not have the model ready.
            Overloaded: it refuses more work.
            DeadlineExceeded: no answer within ``deadline_s`` seconds.
            BackendFailed: it failed, or its answer has the wrong shape.
        """
        ...


class AnswerSource(Protocol):
    """Answers texts one by one: the coalescer, or a cache in front of it."""

    async def classify(self, model: Model, texts: Sequence[ModelInput], deadline_s: float) -> list[Answer]:
        """Run the model on ``texts``; return for each, in order, its scores or its own error.

        Raises:
            Overloaded: no text was accepted.
        """
        ...
