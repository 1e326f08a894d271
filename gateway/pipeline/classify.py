"""From a request to its answers: the one way that all protocols share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gateway.access.admission import Admission
from gateway.access.rate_limit import RateLimit
from gateway.domain.backend import Timing
from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, BadInput
from gateway.domain.service import BatchItem, Classification, Classifier
from gateway.domain.validate import BatchCall, TextCall
from gateway.pipeline.caller import Caller
from gateway.pipeline.deadline import RequestDeadline
from gateway.telemetry.metrics import Metrics

_RENDERING_S = 0.25
"""Time kept of a batch's deadline to render what was answered by then."""

_Message = TypeVar("_Message")
Receive = Callable[[RequestDeadline], Awaitable[_Message]]
"""Receives the whole request."""
ReadMessage = Callable[[_Message], tuple[Model, TextCall | BatchCall]]
"""Parses a request: returns the model and the call that it asks for."""
Outcome = Classification | list[BatchItem]


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may ask for; see the settings of the same names."""

    request_timeout_s: float
    max_batch_texts: int


class ClassifyCall:
    """Receives, admits, counts and classifies what one request asks for."""

    def __init__(
        self,
        classifier: Classifier,
        admission: Admission,
        rate: RateLimit,
        metrics: Metrics,
        limits: RequestLimits,
    ) -> None:
        self._classifier = classifier
        self._admission = admission
        self._rate = rate
        self._metrics = metrics
        self.limits = limits

    async def __call__(
        self,
        caller: Caller,
        receive: Receive[_Message],
        read: ReadMessage[_Message],
    ) -> Outcome:
        """Answer a request: receive → admission → read → rate → validate → infer.

        The rate comes after reading, because only the message tells how many texts there are to count.

        Args:
            caller: whose request it is.
            receive: awaits the message.
            read: finds out what it asks for.

        Raises:
            TritonflareError: the request is refused, or nothing of it was answered.
        """
        with RequestDeadline(self.limits.request_timeout_s, caller.patience_s) as deadline:
            message = await receive(deadline)
            with self._admission:
                model, call = read(message)
                if isinstance(call, BatchCall):
                    return await self._batch(caller, model, call, deadline)
                return await self._text(caller, model, call, deadline)

    async def _text(
        self, caller: Caller, model: Model, call: TextCall, deadline: RequestDeadline
    ) -> Classification:
        await self._rate.spend(caller.account)
        if isinstance(call.text, AiError):
            raise call.text
        deadline.watch_for_disconnect(caller.connection)
        answer = await self._classifier.classify(model, call.text, deadline.remaining_s())
        caller.record.timing = answer.timing
        self._metrics.text_classified(model.name, answer)
        return answer

    async def _batch(
        self, caller: Caller, model: Model, call: BatchCall, deadline: RequestDeadline
    ) -> list[BatchItem]:
        """Classify a batch; the request itself has been admitted as one text.

        Raises:
            AiError: nothing was answered, and the backend is the reason: the caller sees what a single
                text would have got, so that clients repeat what they would repeat.
            Overloaded: there is no room for so many texts.
            RateLimited: so many texts exceed the account's rate.
        """
        with self._admission.places(len(call.items) - 1):
            # After admission: what is refused for lack of room must not count against the rate.
            await self._rate.spend(caller.account, len(call.items))
            texts = [item.text for item in call.items if isinstance(item.text, str)]
            deadline.watch_for_disconnect(caller.connection)
            left_s = deadline.remaining_s()
            # A little less than the request has: what was answered by then is not thrown away.
            deadline_s = max(left_s - _RENDERING_S, left_s / 2)
            answers = iter(await self._classifier.classify_all(model, texts, deadline_s))
            items = [
                BatchItem(item.reference, next(answers) if isinstance(item.text, str) else item.text)
                for item in call.items
            ]
        _raise_if_nothing_was_answered(items)
        classified = [item.outcome for item in items if isinstance(item.outcome, Classification)]
        for answer in classified:
            self._metrics.text_classified(model.name, answer)
        caller.record.timing = _longest(classified)
        return items


def _longest(answers: Sequence[Classification]) -> Timing | None:
    """The longest wait of a text, and the longest call of a text: what the caller waited for at least."""
    timings = [answer.timing for answer in answers if answer.timing is not None]
    if not timings:
        return None
    return Timing(max(timing.queue_s for timing in timings), max(timing.triton_s for timing in timings))


def _raise_if_nothing_was_answered(items: Sequence[BatchItem]) -> None:
    outcomes = [item.outcome for item in items]
    if any(isinstance(outcome, Classification) for outcome in outcomes):
        return
    for outcome in outcomes:
        if isinstance(outcome, AiError) and not isinstance(outcome, BadInput):
            raise outcome
