"""Inference by tensors, over the pipeline that all protocols share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError
from gateway.domain.service import BatchItem, Classification
from gateway.domain.validate import BatchCall, TextCall
from gateway.inference_protocol.inputs import read_texts
from gateway.inference_protocol.messages import InferRequest, InferResponse
from gateway.inference_protocol.models import ModelDirectory
from gateway.inference_protocol.outputs import check_outputs, make_outputs
from gateway.pipeline.caller import Caller
from gateway.pipeline.classify import ClassifyCall, Receive

_Message = TypeVar("_Message")


class ModelInfer:
    """Answers requests for inference."""

    def __init__(self, classify: ClassifyCall, models: ModelDirectory) -> None:
        self._classify = classify
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

        def read(message: _Message) -> tuple[Model, TextCall | BatchCall]:
            nonlocal request, served
            request = parse(message)
            served = self._models.find(request.model, request.version, caller.record)
            check_outputs(request.outputs)
            return served, read_texts(request.inputs, self._classify.limits.max_batch_texts)

        outcome = await self._classify(caller, receive, read)
        if request is None or served is None:
            raise RuntimeError("a request was answered before it was read")
        answers = [outcome] if isinstance(outcome, Classification) else [_answer(item) for item in outcome]
        return InferResponse(
            request.model, self._models.version(served), request.id, make_outputs(answers, request.outputs)
        )


def _answer(item: BatchItem) -> Classification:
    if isinstance(item.outcome, AiError):
        raise item.outcome
    return item.outcome
