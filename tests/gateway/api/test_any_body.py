"""Whatever a body holds, the answer is one of the contract's."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.access.admission import Admission
from gateway.access.rate_limit import RateLimit
from gateway.access.tokens import load_tokens
from gateway.api.app import App
from gateway.api.predict import PredictBody
from gateway.api.request_body import BodyReader
from gateway.api.router import Route
from gateway.api.run import RunModel
from gateway.batches.queue import BatchQueue
from gateway.batches.sqlite_store import SqliteStore
from gateway.batches.store import StoreLimits
from gateway.domain.backend import RawScores
from gateway.domain.catalogue import Catalogue, Ensemble, Model
from gateway.domain.coalescing.coalescer import Coalescer
from gateway.domain.coalescing.queue import CoalescingLimits
from gateway.domain.requests import InputLimits
from gateway.domain.service import Predictor
from gateway.pipeline.observer import RequestObserver
from gateway.pipeline.predict import PredictCall, RequestLimits
from gateway.pipeline.queued import RunCall
from gateway.server.message import Header, HttpRequest, Response
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.metrics import Metrics
from tests.gateway.domain.test_catalogue import GOOD
from tests.gateway.domain.test_validate import JSON_VALUES

NAME = GOOD["tritonflare.name"]
KEYS = st.sampled_from(
    ["text", "requests", "model", "input", "options", "queueRequest", "external_reference", "request_id"]
)
VALUES = JSON_VALUES | st.text(st.characters()) | st.just(NAME)
LIKELY = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
"""JSON values with the keys that mean something, lone surrogates included."""


class Constant:
    """A backend that says the same of every text."""

    async def discover(self) -> Sequence[Ensemble]:
        return [Ensemble("e", GOOD, max_batch_size=4)]

    async def classify(self, model: Model, texts: Sequence[Any], deadline_s: float) -> Sequence[RawScores]:
        if len(texts) > model.max_batch_size:
            raise AssertionError("more texts than the model takes")
        for text in texts:
            text.decode()
        return [RawScores((0.0, 1.0), 3)] * len(texts)


def _app(queue: BatchQueue | None = None) -> tuple[App, Admission]:
    catalogue, admission = Catalogue(), Admission(10)
    catalogue.replace(asyncio.run(Constant().discover()))
    metrics = Metrics()
    predictor = Predictor(Coalescer(Constant(), CoalescingLimits(2, 8, 4.0, 30.0)))
    rate = RateLimit(0, tuple)
    predict = PredictCall(
        predictor,
        admission,
        rate,
        metrics,
        RequestLimits(60, InputLimits(3, 3, None if queue is None else 5)),
    )
    bodies = BodyReader(admission, 1 << 20, 10)
    body = PredictBody(RunCall(predict, rate, queue), catalogue, bodies, 1 << 20, 1 << 20)
    run = RunModel(body, "array")
    routes = [
        Route(("POST",), "/{account_id}/run/{model:path}", run),
        Route(("POST",), "/{account_id}/run", run.by_body),
    ]
    observer = RequestObserver(metrics, AccessLog("error", 1))
    return App(routes, load_tokens("*:token", None), observer), admission


APP, ADMISSION = _app()


def post(path: str, query: str, body: bytes, app: App = APP) -> tuple[int, dict[bytes, bytes], Any]:
    """Return status, headers and decoded body."""

    async def answer() -> tuple[Response, Sequence[Header]]:
        request = HttpRequest("POST", path, query, [(b"authorization", b"Bearer token")])
        request.body.append(body)
        request.body.finish()
        return await app(request)

    response, headers = asyncio.run(answer())
    return response.status, dict(headers), json.loads(response.body)


def check(status: int, headers: dict[bytes, bytes], body: Any) -> None:
    """Check what every answer of the contract has in common."""
    assert headers[b"content-type"] == b"application/json"
    assert set(body) == {"result", "success", "errors", "messages"}
    if status == 200:
        assert body["success"] is True
        if isinstance(body["result"], dict) and "status" in body["result"]:
            assert list(body["result"]) == ["status", "request_id", "model"]
        elif isinstance(body["result"], dict):
            responses = body["result"]["responses"]
            assert [entry["id"] for entry in responses] == list(range(len(responses)))
            assert body["result"]["usage"]["total_tokens"] == 3 * sum(e["success"] for e in responses)
        else:
            assert [entry["label"] for entry in body["result"]] == ["NEGATIVE", "POSITIVE"]
        return
    assert (status, body["result"]) == (400, {})
    assert body["errors"][0]["code"] in {5006, 5007}
    assert body["errors"][0]["message"].endswith(f"({headers[b'cf-ai-req-id'].decode()})")


@pytest.mark.parametrize("query", ["", "queueRequest=true"])
@given(value=LIKELY)
@example(value={"requests": [{"text": "\ud800", "external_reference": "\udfff"}]})
@example(value={"model": "\ud800", "input": {}})
@example(value={"model": NAME, "input": {"text": "a"}, "options": {"queueRequest": True}})
def test_any_json_value_gets_an_answer_of_the_contract(query: str, value: object) -> None:
    body = json.dumps(value).encode()
    check(*post(f"/a/run/{NAME}", query, body))
    check(*post("/a/run", query, body))
    assert ADMISSION.in_flight == 0


@given(value=LIKELY)
@example(value={"requests": [{"text": "\ud800", "external_reference": "\udfff"}, {"text": 1.5}]})
@example(value={"request_id": "\ud800"})
@example(value={"request_id": ["a"]})
@example(value={"input": {"request_id": {}}, "model": "a"})
def test_any_json_value_is_queued_or_gets_an_answer_of_the_contract(value: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder), StoreLimits(100, 1 << 30, 60))
        app, admission = _app(BatchQueue(store, lambda account: account))
        body = json.dumps(value).encode()
        check(*post(f"/a/run/{NAME}", "queueRequest=true", body, app))
        check(*post("/a/run", "queueRequest=true", body, app))
        assert admission.in_flight == 0
        asyncio.run(store.close())


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3))
def test_any_few_texts_are_all_answered_in_order(texts: list[str]) -> None:
    requests = [{"text": text, "external_reference": text} for text in texts]
    status, _, body = post(f"/a/run/{NAME}", "", json.dumps({"requests": requests}).encode())
    assert status == 200
    assert [entry["external_reference"] for entry in body["result"]["responses"]] == texts
    assert all(entry["success"] for entry in body["result"]["responses"])
