"""Several texts in one request, answered at once in the shape of a finished batch."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.access.admission import Admission
from gateway.access.rate_limit import RateLimit
from gateway.api.deadline import RequestDeadline
from gateway.domain.backend import Timing
from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, BadInput, without_frames
from gateway.domain.service import BatchItem, Classification, Classifier
from gateway.domain.validate import reference_of, text_of
from gateway.server.message import Request
from gateway.telemetry.metrics import Metrics

_RENDERING_S = 0.25


class BatchRunner:
    """Classifies the inputs of a batch, each with its own success or error."""

    def __init__(
        self, classifier: Classifier, admission: Admission, rate: RateLimit, metrics: Metrics
    ) -> None:
        self._classifier = classifier
        self._admission = admission
        self._rate = rate
        self._metrics = metrics

    async def run(
        self, request: Request, model: Model, inputs: Sequence[object], deadline: RequestDeadline
    ) -> list[BatchItem]:
        """Classify ``inputs``; the request itself has been admitted as one text.

        Raises:
            AiError: nothing was answered, and the backend is the reason: the caller sees what a single
                text would have got, so that clients repeat what they would repeat.
            Overloaded: there is no room for so many texts.
            RateLimited: so many texts exceed the account's rate.
        """
        with self._admission.places(len(inputs) - 1):
            # After there is room: what is refused for the lack of it must not cost the rate.
            await self._rate.spend(request, len(inputs))
            read = [_read(item) for item in inputs]
            texts = [text for _, text in read if isinstance(text, str)]
            deadline.watch_for_disconnect(request)
            left_s = deadline.remaining_s()
            # A little less than the request has: what was answered by then is not thrown away.
            deadline_s = max(left_s - _RENDERING_S, left_s / 2)
            answers = iter(await self._classifier.classify_all(model, texts, deadline_s))
            items = [
                BatchItem(reference, next(answers) if isinstance(text, str) else text)
                for reference, text in read
            ]
        _raise_if_nothing_was_answered(items)
        answers_given = [item.outcome for item in items if isinstance(item.outcome, Classification)]
        for answer in answers_given:
            self._metrics.text_classified(model.name, answer)
        request.timing = _longest(answers_given)
        return items


def _read(item: object) -> tuple[str | None, str | AiError]:
    """Return the reference and the text of an input, or what is wrong with it instead of the text."""
    reference = None
    try:
        reference = reference_of(item)
        return reference, text_of(item)
    except BadInput as exc:
        return reference, without_frames(exc)


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
