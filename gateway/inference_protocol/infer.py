"""Inference by tensors, over the pipeline that all protocols share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError
from gateway.domain.requests import Call
from gateway.domain.service import Classification, Ranking, TaskAnswer
from gateway.inference_protocol.inputs import read_inputs
from gateway.inference_protocol.messages import InferRequest, InferResponse
from gateway.inference_protocol.models import ModelDirectory
from gateway.inference_protocol.outputs import check_outputs, make_outputs
from gateway.pipeline.caller import Caller
from gateway.pipeline.predict import PredictCall, Receive

_Message = TypeVar("_Message")


class ModelInfer:
    """Answers requests for inference."""

    def __init__(self, predict: PredictCall, models: ModelDirectory) -> None:
        self._predict = predict
        self._models = models

    async def __call__(
        self,
        caller: Caller,
        receive: Receive[_Message],
        parse: Callable[[_Message], InferRequest],
    ) -> InferResponse:
        """Answer one request; all of its texts are answered, or none.

        Args:
            caller: whose request it is.
            receive: awaits the transport's message.
            parse: makes a request of the message.

        Raises:
            TritonflareError: the request is refused, or one of its texts has no answer.
        """
        request: InferRequest | None = None
        served: Model | None = None

        def read(message: _Message) -> tuple[Model, Call]:
            nonlocal request, served
            request = parse(message)
            served = self._models.find(request.model, request.version, caller.record)
            check_outputs(request.outputs)
            most = self._predict.limits.inputs.max_batch_texts
            return served, read_inputs(request.inputs, served.task, most)

        outcome = await self._predict(caller, receive, read)
        if request is None or served is None:
            raise RuntimeError("a request was answered before it was read")
        outcomes = [item.outcome for item in outcome] if isinstance(outcome, list) else [outcome]
        answers = [_scores(each) for each in outcomes]
        return InferResponse(
            request.model, self._models.version(served), request.id, make_outputs(answers, request.outputs)
        )


def _scores(outcome: TaskAnswer | AiError) -> Classification:
    if isinstance(outcome, AiError):
        raise outcome
    if isinstance(outcome, Ranking):
        raise TypeError("tensors hold the pairs of a ranking, each by itself")
    return outcome
