"""From a request's body to its answers: the one way that REST and the binding share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.access.admission import Admission
from gateway.access.rate_limit import RateLimit
from gateway.api.context import RequestContext
from gateway.api.deadline import RequestDeadline
from gateway.api.request_body import BodyReader
from gateway.domain.backend import Timing
from gateway.domain.catalogue import Catalogue, Model
from gateway.domain.errors import AiError, BadInput, NoSuchModel
from gateway.domain.service import BatchItem, Classification, Classifier
from gateway.domain.validate import BatchCall, ResultShape, TextCall, parse_json
from gateway.telemetry.metrics import Metrics

_RENDERING_S = 0.25
"""Time kept of a batch's deadline to render what was answered by then."""

ReadCall = Callable[[object], tuple[Model, TextCall | BatchCall]]
"""Makes of a parsed body the model and the call that it asks for."""
Outcome = Classification | list[BatchItem]


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What a request may ask for; see the settings of the same names."""

    request_timeout_s: float
    result_shape: ResultShape
    max_batch_texts: int


def find_model(catalogue: Catalogue, context: RequestContext, name: str) -> Model:
    """Find a model, and label the request with it for the metrics.

    Raises:
        NoSuchModel: no model of this name is ready; the label is then bounded.
    """
    try:
        model = catalogue.find(name)
    except NoSuchModel:
        context.record.model = "unknown"
        raise
    context.record.model = model.name
    return model


class ClassifyCall:
    """Reads, admits, counts and classifies what one request asks for."""

    def __init__(
        self,
        catalogue: Catalogue,
        classifier: Classifier,
        bodies: BodyReader,
        admission: Admission,
        rate: RateLimit,
        metrics: Metrics,
        limits: RunLimits,
    ) -> None:
        self._catalogue = catalogue
        self._classifier = classifier
        self._bodies = bodies
        self._admission = admission
        self._rate = rate
        self._metrics = metrics
        self.limits = limits

    def find_model(self, context: RequestContext, name: str) -> Model:
        """Find a model; see the function of this name."""
        return find_model(self._catalogue, context, name)

    async def __call__(self, context: RequestContext, read: ReadCall) -> Outcome:
        """Answer a request: body → admission → parse → rate → validate → infer.

        The rate comes after parsing, because only the body tells how many texts there are to count.

        Raises:
            TritonflareError: the request is refused, or nothing of it was answered.
        """
        with RequestDeadline(self.limits.request_timeout_s) as deadline:
            body = await self._bodies.read(context.http, deadline)
            with self._admission:
                model, call = read(parse_json(body))
                if isinstance(call, BatchCall):
                    return await self._batch(context, model, call, deadline)
                return await self._text(context, model, call, deadline)

    async def _text(
        self, context: RequestContext, model: Model, call: TextCall, deadline: RequestDeadline
    ) -> Classification:
        await self._rate.spend(context.params.get("account_id", ""))
        if isinstance(call.text, AiError):
            raise call.text
        deadline.watch_for_disconnect(context.http)
        answer = await self._classifier.classify(model, call.text, deadline.remaining_s())
        context.record.timing = answer.timing
        self._metrics.text_classified(model.name, answer)
        return answer

    async def _batch(
        self, context: RequestContext, model: Model, call: BatchCall, deadline: RequestDeadline
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
            await self._rate.spend(context.params.get("account_id", ""), len(call.items))
            texts = [item.text for item in call.items if isinstance(item.text, str)]
            deadline.watch_for_disconnect(context.http)
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
        context.record.timing = _longest(classified)
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
