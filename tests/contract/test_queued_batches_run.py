"""How queued batches are run: faults, models that change, metrics, the end of a gateway."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.batches import runner
from gateway.settings import ConfigurationError
from tests.contract.test_errors import check_ai
from tests.support.fake_triton import RERANKER, SST2, FakeTriton, hold, read_texts, reranker
from tests.support.harness import (
    RUN,
    Client,
    Running,
    running_gateway,
    settings_for,
    until,
)
from tests.support.queued_batches import NO_ID, QUEUED, Configure, batch, fetch, submit
from tests.support.redis import running_redis


@pytest.fixture
def client(queueing: Running) -> Client:
    return queueing.client


async def test_a_new_gateway_answers_what_one_before_has_accepted(
    configure: Configure, triton: FakeTriton
) -> None:
    await triton.disappear()
    async with running_gateway(configure(), wait_ready=False) as running:
        await triton.appear()

        async def accepts() -> bool:
            return (await running.client.run(batch("a"), query=QUEUED)).status == 200

        await until(accepts)
        release = asyncio.Event()
        triton.infer_fault = hold(release)
        request_id = await submit(running.client, batch("b"))
        running.stop.set()
        release.set()
        await running.task
    triton.infer_fault = None
    async with running_gateway(configure()) as running:
        responses = (await fetch(running.client, request_id)).json["result"]["responses"]
        assert [entry["success"] for entry in responses] == [True]


async def test_while_triton_is_away_a_batch_waits_and_does_not_fail(
    client: Client, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_NOT_READY_S", 0.3)
    await triton.disappear()
    requests = [await submit(client, batch(f"{number}", "b")) for number in range(3)]
    await asyncio.sleep(1)
    for request_id in requests:
        assert "status" in (await client.run({"request_id": request_id})).json["result"]
    await triton.appear()
    for request_id in requests:
        responses = (await fetch(client, request_id)).json["result"]["responses"]
        assert [entry["success"] for entry in responses] == [True, True]


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_what_may_pass_is_tried_again(
    client: Client, triton: FakeTriton, status: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_NOT_READY_S", 0.3)
    left = 3

    async def fault(request: Any, context: Any) -> None:
        nonlocal left
        if left and read_texts(request) != [b"This is a canary."]:
            left -= 1
            await context.abort(status, "no")

    triton.infer_fault = fault
    responses = (await fetch(client, await submit(client, batch("a", "b")))).json["result"]["responses"]
    assert [entry["success"] for entry in responses] == [True, True]
    assert left == 0


async def test_no_live_request_is_refused_because_a_batch_runs(
    triton: FakeTriton, configure: Configure
) -> None:
    async def slow(*_: Any) -> None:
        await asyncio.sleep(0.02)

    triton.infer_fault = slow
    async with running_gateway(configure(max_requests_in_flight=100)) as running:
        await submit(running.client, batch(*(f"text {number}" for number in range(1000))))

        async def has_begun() -> bool:
            return bool(triton.texts)

        await until(has_begun)
        live = batch(*(f"live {number}" for number in range(100)))
        assert [(await running.client.run(live)).status for _ in range(20)] == [200] * 20


async def test_calls_of_one_model_that_hang_hold_up_no_batch_for_another(
    triton: FakeTriton, configure: Configure
) -> None:
    triton.ensembles.append(reranker())
    release = asyncio.Event()

    async def hang(request: Any, context: Any) -> None:
        if len(request.inputs) == 2 and request.ByteSize() > 400:
            await release.wait()

    triton.infer_fault = hang
    async with running_gateway(configure(request_timeout_s=30.0)) as running:
        client, path = running.client, RUN.replace(SST2, RERANKER)
        ask = {"query": "q", "contexts": [{"text": "z" * 300}]}
        hung = [asyncio.create_task(client.run(ask, path=path)) for _ in range(6)]
        await asyncio.sleep(0.3)
        later = await submit(client, {"requests": [{"query": "q", "contexts": [{"text": "z"}]}]}, path=path)
        answer = await fetch(client, await submit(client, batch("a")), timeout_s=10)
        assert [entry["success"] for entry in answer.json["result"]["responses"]] == [True]
        release.set()
        assert {(await each).status for each in hung} == {200}
        assert (await fetch(client, later)).json["result"]["responses"][0]["success"]


async def test_a_text_that_fails_the_model_fails_alone(client: Client, triton: FakeTriton) -> None:
    async def poison(request: Any, context: Any) -> None:
        if b"poison" in read_texts(request):
            await context.abort(grpc.StatusCode.INTERNAL, "words of Triton")

    triton.infer_fault = poison
    request_id = await submit(client, batch("a", "poison", "c"))
    responses = (await fetch(client, request_id)).json["result"]["responses"]
    assert [entry["success"] for entry in responses] == [True, False, True]
    assert responses[1]["errors"] == [
        {"message": f"AiError: The model failed to answer. ({request_id})", "code": 8007}
    ]


async def test_a_model_that_is_replaced_answers_under_its_name(
    client: Client, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_NOT_READY_S", 0.3)
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    request_id = await submit(client, batch(*(f"text {number}" for number in range(300))))
    triton.ensembles[0].overrides = {"tritonflare.labels": '["BAD", "GOOD"]'}
    await asyncio.sleep(0.4)
    triton.infer_fault = None
    release.set()
    responses = (await fetch(client, request_id)).json["result"]["responses"]
    assert len(responses) == 300
    assert all(entry["success"] for entry in responses)
    assert [score["label"] for score in responses[-1]["result"]] == ["BAD", "GOOD"]


async def test_of_a_model_that_is_gone_every_input_gets_the_error_and_can_be_fetched(
    configure: Configure, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_NOT_READY_S", 0.3)
    monkeypatch.setattr(runner, "MISSING_S", 0.8)
    triton.ensembles.append(reranker())
    async with running_gateway(configure()) as running:
        client = running.client
        path = RUN.replace(SST2, RERANKER)
        triton.infer_fault = hold(release := asyncio.Event())
        payload = {"requests": [{"query": "a", "contexts": [{"text": "a"}]}, {"query": "a"}]}
        blocking = await submit(client, batch("x"))
        request_id = await submit(client, payload, path=path)
        triton.ensembles.pop()
        triton.infer_fault = None
        release.set()
        await fetch(client, blocking)
        end = asyncio.get_running_loop().time() + 20
        while "status" in (answer := await client.run({"request_id": request_id}, path=path)).json["result"]:
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.1)
        codes = [entry["errors"][0]["code"] for entry in answer.json["result"]["responses"]]
        assert codes == [5007, 5006]
        assert await client.metric('tritonflare_batches_finished_total{result="failed"}') == 1
        check_ai(await client.run({"query": "a"}, path=path), 400, 5007, f"No such model {RERANKER} or task")


async def test_metrics_and_one_log_line_tell_of_the_end_of_each_batch_and_nothing_of_its_texts(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with running_gateway(configure()) as running:
            client = running.client
            first = await submit(client, batch("private words", ""))
            second = await submit(client, batch(""))
            await fetch(client, first)
            await fetch(client, second)
            assert await client.metric("tritonflare_batches_accepted_total") == 2
            assert await client.metric('tritonflare_batches_finished_total{result="ok"}') == 1
            assert await client.metric('tritonflare_batches_finished_total{result="failed"}') == 1
            assert await client.metric("tritonflare_batch_duration_seconds_count") == 2
            assert await client.metric(f'tritonflare_tokens_total{{model="{SST2}"}}') == 4
            assert await client.metric("tritonflare_requests_in_flight") == 0
    lines = [record.getMessage() for record in caplog.records if record.name == "tritonflare.batches"]
    assert [re.sub(r"seconds=\d+\.\d{3}$", "seconds=", line) for line in lines] == [
        f"batch {first} finished: model={SST2} inputs=2 failed=1 seconds=",
        f"batch {second} finished: model={SST2} inputs=1 failed=1 seconds=",
    ]
    assert "private" not in caplog.text


async def test_gauges_show_what_waits(
    configure: Configure, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_STATS_S", 0.1)
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with running_gateway(configure()) as running:
        requests = [await submit(running.client, batch("a")) for _ in range(3)]

        async def shown() -> bool:
            names = ("batches_queued", "batches_running", "oldest_batch_seconds")
            queued, running_, oldest = [await running.client.metric(f"tritonflare_{name}") for name in names]
            return (queued, running_) == (2, 1) and oldest > 0.2

        await until(shown)
        assert (await running.client.get("/readyz")).status == 200
        release.set()
        for request_id in requests:
            await fetch(running.client, request_id)

        async def empty() -> bool:
            return await running.client.metric("tritonflare_oldest_batch_seconds") == 0

        await until(empty)


async def test_a_store_that_is_away_is_a_clear_refusal_and_nothing_else_suffers(
    triton: FakeTriton, tmp_path: Path
) -> None:
    with running_redis(tmp_path) as server:
        async with running_gateway(settings_for(triton, batch_redis_url=server.url)) as running:
            client = running.client
            await fetch(client, await submit(client, batch("a")))
            server.stop()
            for payload in (batch("a"), {"request_id": NO_ID}):
                refused = await client.run(payload, query=QUEUED)
                check_ai(refused, 503, 3050, "Queued batches are not available, please try again.")
                assert refused.header("retry-after") == "5"
            assert (await client.run({"text": "a"})).status == 200
            unknown = RUN.replace(SST2, "@cf/no/such")
            assert (await client.run({"text": "a"}, path=unknown)).error["code"] == 5007
            assert (await client.run({"request_id": NO_ID}, path=unknown)).error["code"] == 3050
            assert (await client.get("/readyz")).status == 200
            server.start()
            await fetch(client, await submit(client, batch("b")))


@pytest.mark.parametrize("through", ["rest", "binding"])
async def test_an_unknown_model_is_one_without_the_store(
    triton: FakeTriton, tmp_path: Path, through: str
) -> None:
    """Only a body that polls has the store asked."""
    (tmp_path / "batches.sqlite3").write_bytes(b"not a database" * 100)
    async with running_gateway(settings_for(triton, batch_folder=tmp_path)) as running:
        client = running.client
        native = client.headers | {"cf-consn-model-id": "@cf/no/such"}

        async def code(payload: object, queued: str = "false") -> int:
            if through == "rest":
                path = RUN.replace(SST2, "@cf/no/such")
                answer = await client.run(payload, path=path, query=f"?queueRequest={queued}")
                return int(answer.error["code"])
            body = json.dumps({"inputs": payload, "options": {"queueRequest": queued == "true"}}).encode()
            answer = await client.send("POST", "/run?version=3", body, native)
            return int(answer.json["internalCode"])

        payloads: list[object] = [{"text": "a"}, {"text": 5}, batch("a"), batch("x" * 100_000), []]
        for payload in payloads:
            assert await code(payload) == 5007
            assert await code(payload, "true") == 5007
        assert await code({"request_id": 5}) == 5007
        assert await code({"request_id": NO_ID}) == 3050


def test_an_unusable_address_of_redis_is_one_clear_sentence(triton: FakeTriton) -> None:
    from gateway.composition import compose

    with pytest.raises(ConfigurationError, match=r"^GATEWAY_BATCH_REDIS_URL is not of the form") as caught:
        compose(settings_for(triton, batch_redis_url="redis://:secret@host:port/0"))
    assert "secret" not in str(caught.value)


async def test_a_chunk_under_way_finishes_before_the_gateway_ends(
    configure: Configure, triton: FakeTriton
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with running_gateway(configure()) as running:
        request_id = await submit(running.client, batch(*(f"text {number}" for number in range(200))))

        async def begun() -> bool:
            return bool(triton.texts)

        await until(begun)
        running.stop.set()
        await asyncio.sleep(0.5)
        release.set()
        await running.task
    triton.infer_fault = None
    sent = len(triton.texts)
    assert 0 < sent < 200
    async with running_gateway(configure()) as running:
        responses = (await fetch(running.client, request_id)).json["result"]["responses"]
    assert [entry["success"] for entry in responses] == [True] * 200
    assert sorted(set(triton.texts)) == sorted(f"text {number}".encode() for number in range(200))
    assert len(triton.texts) == 200, "the chunk under way was saved, and nothing was computed twice"
    assert triton.cancelled == 0
