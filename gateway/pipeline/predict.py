"""From a request to its answers: the one way that all protocols share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gateway.access.admission import Admission
from gateway.access.rate_limit import RateLimit
from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, BadInput
from gateway.domain.requests import BatchCall, Call, InputLimits, SingleCall, TaskRequest, size_of
from gateway.domain.service import BatchItem, Predictor, TaskAnswer, longest
from gateway.pipeline.caller import Caller
from gateway.pipeline.deadline import RequestDeadline
from gateway.telemetry.metrics import Metrics

_RENDERING_S = 0.25
"""Time kept of a batch's deadline to render what was answered by then."""

_Message = TypeVar("_Message")
_Result = TypeVar("_Result")
Receive = Callable[[RequestDeadline], Awaitable[_Message]]
"""Receives the whole request."""
ReadMessage = Callable[[_Message], tuple[Model, Call]]
"""Parses a request: returns the model and the call that it asks for."""
Outcome = TaskAnswer | list[BatchItem]
ObserveAnswer = Callable[[Model, TaskRequest, TaskAnswer], None]
"""Sees each request that was answered at once, with its answer; returns at once."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may ask for; see the settings of the same names."""

    request_timeout_s: float
    inputs: InputLimits


class PredictCall:
    """Receives, admits, counts and answers what one request asks for."""

    def __init__(
        self,
        predictor: Predictor,
        admission: Admission,
        rate: RateLimit,
        metrics: Metrics,
        limits: RequestLimits,
        observe: ObserveAnswer = lambda model, request, answer: None,
    ) -> None:
        self._predictor = predictor
        self._admission = admission
        self._rate = rate
        self._metrics = metrics
        self._observe = observe
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

        async def answer(message: _Message, deadline: RequestDeadline) -> Outcome:
            model, call = read(message)
            return await self.answer(caller, model, call, deadline)

        return await self.admitted(caller, receive, answer)

    async def admitted(
        self,
        caller: Caller,
        receive: Receive[_Message],
        handle: Callable[[_Message, RequestDeadline], Awaitable[_Result]],
    ) -> _Result:
        """Receive a request, admit it as one text, and handle it before its deadline.

        Raises:
            TritonflareError: it is refused, or ``handle`` raises it.
        """
        with RequestDeadline(self.limits.request_timeout_s, caller.patience_s) as deadline:
            message = await receive(deadline)
            with self._admission:
                return await handle(message, deadline)

    async def answer(self, caller: Caller, model: Model, call: Call, deadline: RequestDeadline) -> Outcome:
        """Answer a call that was admitted as one text; see `__call__`."""
        deadline.set_patience(call.options.patience_s)
        if isinstance(call, BatchCall):
            return await self._batch(caller, model, call, deadline)
        return await self._single(caller, model, call, deadline)

    async def _single(
        self, caller: Caller, model: Model, call: SingleCall, deadline: RequestDeadline
    ) -> TaskAnswer:
        with self._admission.places(_places((call.request,))):
            await self._rate.spend(caller.account)
            if isinstance(call.request, AiError):
                raise call.request
            deadline.watch_for_disconnect(caller.connection)
            answer = await self._predictor.answer(
                model, call.request, deadline.remaining_s(), call.options, self._admission.spare_places
            )
        caller.record.timing = answer.timing
        self._metrics.answered(model.name, answer)
        self._observe(model, call.request, answer)
        return answer

    async def _batch(
        self, caller: Caller, model: Model, call: BatchCall, deadline: RequestDeadline
    ) -> list[BatchItem]:
        """Answer a batch; the request itself has been admitted as one text.

        Raises:
            AiError: nothing was answered, and the backend is the reason: the caller sees what a single
                request would have got, so that clients repeat what they would repeat.
            Overloaded: there is no room for so many texts.
            RateLimited: so many requests exceed the account's rate.
        """
        with self._admission.places(_places([item.request for item in call.items])):
            # After admission: what is refused for lack of room must not count against the rate.
            await self._rate.spend(caller.account, len(call.items))
            requests = [item.request for item in call.items if not isinstance(item.request, AiError)]
            deadline.watch_for_disconnect(caller.connection)
            left_s = deadline.remaining_s()
            # A little less than the request has: what was answered by then is not thrown away.
            deadline_s = max(left_s - _RENDERING_S, left_s / 2)
            answers = iter(
                await self._predictor.answer_all(
                    model, requests, deadline_s, call.options, self._admission.spare_places
                )
            )
            items = [
                BatchItem(
                    item.reference, item.request if isinstance(item.request, AiError) else next(answers)
                )
                for item in call.items
            ]
        _raise_if_nothing_was_answered(items)
        answered = [item.outcome for item in items if not isinstance(item.outcome, AiError)]
        for request, item in zip(call.items, items, strict=True):
            if not isinstance(request.request, AiError) and not isinstance(item.outcome, AiError):
                self._metrics.answered(model.name, item.outcome)
                self._observe(model, request.request, item.outcome)
        caller.record.timing = longest([answer.timing for answer in answered])
        return items


def _places(requests: Sequence[TaskRequest | AiError]) -> int:
    """How many places requests take in flight, beside the one that their call was admitted with.

    A ranking takes one for each pair, because that is what it costs.
    """
    return sum(map(size_of, requests)) - 1


def _raise_if_nothing_was_answered(items: Sequence[BatchItem]) -> None:
    outcomes = [item.outcome for item in items]
    if any(not isinstance(outcome, AiError) for outcome in outcomes):
        return
    for outcome in outcomes:
        if isinstance(outcome, AiError) and not isinstance(outcome, BadInput):
            raise outcome
