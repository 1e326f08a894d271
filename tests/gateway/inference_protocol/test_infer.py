"""Inference by tensors, over the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.access.admission import Admission
from gateway.access.rate_limit import RateLimit
from gateway.domain.backend import AnswerSource, RawScores
from gateway.domain.catalogue import Catalogue, Ensemble, Model
from gateway.domain.errors import (
    AiError,
    BackendFailed,
    BadInput,
    DeadlineExceeded,
    NoSuchModel,
    NoSuchVersion,
    Overloaded,
)
from gateway.domain.health import ModelHealth
from gateway.domain.requests import InputLimits
from gateway.domain.service import Predictor
from gateway.inference_protocol.infer import ModelInfer
from gateway.inference_protocol.messages import InferRequest, InferResponse
from gateway.inference_protocol.models import ModelDirectory
from gateway.inference_protocol.tensors import InputTensor, RequestedOutput
from gateway.pipeline.caller import Caller
from gateway.pipeline.deadline import RequestDeadline
from gateway.pipeline.predict import PredictCall, RequestLimits
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import RequestRecord
from tests.gateway.domain.test_catalogue import GOOD

NAME = GOOD["tritonflare.name"]


class Source(AnswerSource):
    """Answers the length of a text as its logit; a text ``fail`` fails alone."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []

    async def classify(
        self, model: Model, texts: Sequence[Any], deadline_s: float
    ) -> list[RawScores | AiError]:
        self.deadlines.append(deadline_s)
        await asyncio.sleep(0.01)
        return [
            BackendFailed() if text == b"fail" else RawScores((0.0, float(len(text))), len(text))
            for text in texts
        ]


class Setup:
    """A ModelInfer with what it stands on."""

    def __init__(self, places: int = 10) -> None:
        catalogue = Catalogue()
        catalogue.replace([Ensemble("cf-ensemble", GOOD, max_batch_size=8)])
        self.admission = Admission(places)
        self.source = Source()
        predict = PredictCall(
            Predictor(self.source),
            self.admission,
            RateLimit(0, tuple),
            Metrics(),
            RequestLimits(60, InputLimits(3, 3)),
        )
        self.infer = ModelInfer(predict, ModelDirectory(catalogue, ModelHealth(1), 3))
        self.record = RequestRecord("POST", "ray")

    async def __call__(
        self,
        *texts: str,
        model: str = NAME,
        version: str = "",
        outputs: Sequence[RequestedOutput] = (),
        patience_s: float | None = None,
    ) -> InferResponse:
        tensor = InputTensor("TEXT", "BYTES", (len(texts),), texts)
        request = InferRequest(model, version, "7", [tensor], outputs)

        async def receive(deadline: RequestDeadline) -> InferRequest:
            return request

        try:
            return await self.infer(
                Caller("a", self.record, patience_s=patience_s), receive, lambda message: message
            )
        finally:
            assert self.admission.in_flight == 0


@pytest.mark.parametrize("texts", [("a",), ("a", "bbb"), ("a", "bbb", "cc")])
async def test_texts_are_answered_in_their_order(texts: tuple[str, ...]) -> None:
    setup = Setup()
    response = await setup(*texts, model="cf-ensemble", outputs=[RequestedOutput("token_count")])
    assert (response.model, response.version, response.id) == ("cf-ensemble", "3", "7")
    (output,) = response.outputs
    assert (output.shape, list(output.values)) == ((len(texts), 1), [len(text) for text in texts])
    assert setup.record.model == NAME


async def test_one_text_without_an_answer_fails_the_request() -> None:
    with pytest.raises(BackendFailed):
        await Setup()("a", "fail", "b")


@pytest.mark.parametrize(
    ("error", "model", "version", "outputs"),
    [
        (NoSuchModel, "nothing", "", []),
        (NoSuchVersion, NAME, "2", []),
        (BadInput, NAME, "", [RequestedOutput("scores")]),
    ],
)
async def test_what_cannot_be_answered_is_refused_before_anything_is_computed(
    error: type[AiError], model: str, version: str, outputs: list[RequestedOutput]
) -> None:
    setup = Setup()
    with pytest.raises(error):
        await setup("a", model=model, version=version, outputs=outputs)
    assert setup.source.deadlines == []


async def test_each_text_takes_a_place() -> None:
    with pytest.raises(Overloaded):
        await Setup(places=2)("a", "b", "c")


async def test_what_is_sent_to_triton_has_the_deadline_of_the_settings() -> None:
    setup = Setup()
    await setup("a", patience_s=5)
    await setup("a", patience_s=500)
    assert all(59 < deadline <= 60 for deadline in setup.source.deadlines)


async def test_a_client_without_patience_gets_no_answer() -> None:
    setup = Setup()
    with pytest.raises(DeadlineExceeded):
        await setup("a", "b", patience_s=0)
