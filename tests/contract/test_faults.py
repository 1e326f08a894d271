"""What callers see when Triton misbehaves, and that nothing stays counted."""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import Any

import grpc
import pytest

from tests.contract.test_errors import check_ai
from tests.support.fake_triton import FakeEnsemble, FakeTriton, fail, hold
from tests.support.harness import ACCOUNT, RUN, Client, running_gateway, settings_for, until

GOOD = {"text": "a"}
FAILED = "The model failed to answer."
AWAY = "The model server is not available, please try again."


async def in_flight(client: Client) -> float:
    return await client.metric("tritonflare_requests_in_flight")


@pytest.mark.parametrize(
    ("code", "status", "api_code", "text"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, 3050, AWAY),
        (grpc.StatusCode.NOT_FOUND, 503, 3050, AWAY),
        (grpc.StatusCode.CANCELLED, 503, 3050, AWAY),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, 3040, "Capacity temporarily exceeded, please try again."),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 408, 3007, "Request timeout"),
        (grpc.StatusCode.INTERNAL, 500, 8007, FAILED),
        (grpc.StatusCode.INVALID_ARGUMENT, 500, 8007, FAILED),
        (grpc.StatusCode.UNKNOWN, 500, 8007, FAILED),
        (grpc.StatusCode.UNIMPLEMENTED, 500, 8007, FAILED),
    ],
)
async def test_each_grpc_status_has_one_answer_without_tritons_words(
    client: Client, triton: FakeTriton, code: grpc.StatusCode, status: int, api_code: int, text: str
) -> None:
    triton.infer_fault = fail(code)
    answer = await client.run(GOOD)
    check_ai(answer, status, api_code, text)
    assert b"secret" not in answer.body
    assert await in_flight(client) == 0


async def test_a_model_whose_process_is_gone_is_away_and_not_a_model_that_failed(
    client: Client, triton: FakeTriton
) -> None:
    triton.infer_fault = fail(grpc.StatusCode.INTERNAL, "Stub process 'encoder_0_0' is not healthy.")
    check_ai(await client.run(GOOD), 503, 3050, AWAY)


async def test_retry_headers_tell_when_a_retry_makes_sense(client: Client, triton: FakeTriton) -> None:
    expected = {
        grpc.StatusCode.UNAVAILABLE: ("1", "1000", None),
        grpc.StatusCode.RESOURCE_EXHAUSTED: ("1", "500", None),
        grpc.StatusCode.INTERNAL: (None, None, "false"),
        grpc.StatusCode.DEADLINE_EXCEEDED: (None, None, None),
    }
    for code, headers in expected.items():
        triton.infer_fault = fail(code)
        answer = await client.run(GOOD)
        found = tuple(map(answer.header, ("retry-after", "retry-after-ms", "x-should-retry")))
        assert found == headers


def _drop(name: str) -> Any:
    def reshape(response: Any) -> Any:
        for place, output in enumerate(response.outputs):
            if output.name == name:
                output.name = "other"
                return response
            assert place < 2
        raise AssertionError(name)

    return reshape


def _set(name: str, **fields: Any) -> Any:
    def reshape(response: Any) -> Any:
        for output in response.outputs:
            if output.name == name:
                if "shape" in fields:
                    output.shape[:] = fields["shape"]
                if "datatype" in fields:
                    output.datatype = fields["datatype"]
        return response

    return reshape


def _raw(place: int, content: bytes) -> Any:
    def reshape(response: Any) -> Any:
        response.raw_output_contents[place] = content
        return response

    return reshape


def _without_raw(response: Any) -> Any:
    del response.raw_output_contents[:]
    return response


WRONG = {
    "no logits": _drop("logits"),
    "no token count": _drop("token_count"),
    "three labels": _set("logits", shape=[1, 3]),
    "two rows": _set("logits", shape=[2, 2]),
    "no batch dimension": _set("logits", shape=[2]),
    "half precision": _set("logits", datatype="FP16"),
    "wide counts": _set("token_count", datatype="INT64"),
    "short raw logits": _raw(1, b"\0" * 4),
    "long raw logits": _raw(1, b"\0" * 12),
    "no raw contents": _without_raw,
    "NaN": _raw(1, struct.pack("<2f", float("nan"), 1.0)),
    "infinity": _raw(1, struct.pack("<2f", float("inf"), 1.0)),
    "negative token count": _raw(0, struct.pack("<i", -1)),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_an_answer_that_is_none_is_a_failure_of_the_model(
    client: Client, triton: FakeTriton, wrong: str
) -> None:
    triton.reshape = WRONG[wrong]
    check_ai(await client.run(GOOD), 500, 8007, FAILED)
    triton.reshape = lambda response: response
    assert (await client.run(GOOD)).status == 200


async def test_a_silent_triton_is_3007_at_the_deadline(triton: FakeTriton) -> None:
    never = asyncio.Event()
    async with running_gateway(settings_for(triton, request_timeout_s=0.3)) as running:
        triton.infer_fault = hold(never)
        started = asyncio.get_running_loop().time()
        check_ai(await running.client.run(GOOD), 408, 3007, "Request timeout")
        assert asyncio.get_running_loop().time() - started < 2
        assert await in_flight(running.client) == 0
        assert triton.running >= 1
        assert triton.cancelled == 0


async def test_a_body_that_never_ends_is_3007_at_the_deadline(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, request_timeout_s=0.3)) as running:
        headers = dict(running.client.headers) | {"Content-Length": "100"}
        check_ai(await running.client.send("POST", RUN, b'{"text":', headers), 408, 3007, "Request timeout")
        assert await in_flight(running.client) == 0


async def test_above_the_limit_requests_are_refused_at_once_and_served_again_later(
    triton: FakeTriton,
) -> None:
    release = asyncio.Event()
    async with running_gateway(settings_for(triton, max_requests_in_flight=2, max_batch_texts=2)) as running:
        client = running.client
        triton.infer_fault = hold(release)
        waiting = [asyncio.create_task(client.run(GOOD)) for _ in range(2)]

        async def both_wait() -> bool:
            return await in_flight(client) == 2

        await until(both_wait)
        answer = await client.run(b"the body is not even read")
        check_ai(answer, 429, 3040, "Capacity temporarily exceeded, please try again.")
        assert answer.header("retry-after") == "1"
        release.set()
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200, 200]
        assert await in_flight(client) == 0
        assert (await client.run(GOOD)).status == 200


async def test_a_client_that_disconnects_frees_the_place_and_lets_the_inference_go_on(
    client: Client, triton: FakeTriton
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    _, writer = await client.open("POST", RUN, b'{"text":"a"}')

    async def inferring() -> bool:
        return triton.texts == [b"a"]

    async def over() -> bool:
        return await in_flight(client) == 0

    await until(inferring)
    assert await in_flight(client) == 1
    writer.close()
    await until(over)
    release.set()
    assert (await client.run(GOOD)).status == 200
    assert (triton.cancelled, triton.texts) == (0, [b"a", b"a"])
    counted = (
        'tritonflare_requests_total{code="499",model="@cf/huggingface/distilbert-sst-2-int8",status="499"}'
    )
    assert await client.metric(counted) == 1


async def test_while_triton_is_away_callers_get_503_and_after_it_is_back_200(
    client: Client, triton: FakeTriton
) -> None:
    await triton.disappear()
    for _ in range(3):
        check_ai(await client.run(GOOD), 503, 3050, AWAY)

    async def not_ready() -> bool:
        return (await client.get("/readyz")).status == 503

    await until(not_ready)
    assert (await client.get("/livez")).status == 200
    await triton.appear()

    async def ready() -> bool:
        return (await client.get("/readyz")).status == 200

    await until(ready, 5)
    assert (await client.run(GOOD)).status == 200
    assert await in_flight(client) == 0


async def test_readiness_ends_with_the_first_503_and_not_with_the_next_canary(triton: FakeTriton) -> None:
    settings = settings_for(triton, refresh_interval_s=15.0, canary_max_age_s=30.0)
    async with running_gateway(settings) as running:
        client = running.client
        await triton.disappear()
        assert (await client.get("/readyz")).status == 200
        check_ai(await client.run(GOOD), 503, 3050, AWAY)
        readiness = await client.get("/readyz")
        assert (readiness.status, readiness.json["status"]) == (503, "not ready")
        await triton.appear()

        async def ready() -> bool:
            return (await client.get("/readyz")).status == 200

        await until(ready, 5)


async def test_triton_going_away_within_an_inference_is_503(client: Client, triton: FakeTriton) -> None:
    triton.infer_fault = hold(asyncio.Event())
    waiting = asyncio.create_task(client.run(GOOD))

    async def inferring() -> bool:
        return triton.running == 1

    await until(inferring)
    await triton.disappear()
    check_ai(await waiting, 503, 3050, AWAY)
    assert await in_flight(client) == 0


async def test_a_gateway_that_starts_before_triton_answers_503_and_then_serves() -> None:
    triton = FakeTriton()
    await triton.appear()
    await triton.disappear()
    async with running_gateway(settings_for(triton), wait_ready=False) as running:
        client = running.client
        check_ai(await client.run(GOOD), 503, 3050, AWAY)
        readiness = await client.get("/readyz")
        assert (readiness.status, readiness.json["reason"]) == (503, "no model is known")
        await triton.appear()

        async def served() -> bool:
            return (await client.run(GOOD)).status == 200

        await until(served, 5)
        await triton.disappear()


async def test_the_log_names_an_unreachable_triton_and_its_return(
    triton: FakeTriton, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tritonflare.backend")
    await triton.disappear()
    async with running_gateway(settings_for(triton), wait_ready=False) as running:

        def lines() -> list[str]:
            return [record.getMessage() for record in caplog.records if record.name == "tritonflare.backend"]

        await asyncio.sleep(3.5)
        said = [line for line in lines() if "UNAVAILABLE" in line]
        assert 1 <= len(said) <= 3  # after 0, 1 and 3 seconds, of one look every twentieth of a second
        assert all(f"from Triton at {triton.url};" in line for line in said)
        await triton.appear()

        async def back() -> bool:
            return f"Triton at {triton.url} answers again" in lines()[-1]

        await until(back, 10)
        assert (await running.client.run(GOOD)).status == 200
        await triton.disappear()
        await triton.appear()

        async def connected() -> bool:
            return any(line.endswith(": open again") for line in lines())

        await until(connected, 10)


async def test_the_restricted_protocols_key_goes_with_every_call(triton: FakeTriton) -> None:
    settings = settings_for(triton, triton_metadata_key="Admin=s3cret=with=equals")
    async with running_gateway(settings) as running:
        await running.client.run(GOOD)
    assert len(triton.metadata) >= 4
    assert all(call.get("triton-grpc-protocol-admin") == "s3cret=with=equals" for call in triton.metadata)


async def test_one_malformed_ensemble_does_not_hide_the_others(
    client: Client, triton: FakeTriton, caplog: pytest.LogCaptureFixture
) -> None:
    triton.ensembles += [
        FakeEnsemble("a_broken", "@cf/x/broken", overrides={"tritonflare.labels": "NEGATIVE,POSITIVE"}),
        FakeEnsemble("b_second", "@cf/x/second"),
        FakeEnsemble("c_second", "@cf/x/second", logits=(1.0, 2.0)),
        FakeEnsemble("d_encoder", "@cf/x/encoder", platform=""),
        FakeEnsemble("e_nameless", None),
    ]

    def path(name: str) -> str:
        return f"/client/v4/accounts/{ACCOUNT}/ai/run/{name}"

    async def second_served() -> bool:
        return (await client.run(GOOD, path=path("@cf/x/second"))).status == 200

    await until(second_served)
    await asyncio.sleep(0.3)
    for name in ("@cf/x/broken", "@cf/x/encoder"):
        assert (await client.run(GOOD, path=path(name))).error["code"] == 5007
    assert (await client.run(GOOD)).status == 200
    asked = {request.model_name for request in triton.requests}
    assert asked == {"sst2", "b_second"}
    complaints = [
        r.getMessage() for r in caplog.records if r.name == "tritonflare.catalogue" and r.levelno >= 30
    ]
    assert len(complaints) == 2
    assert "a_broken" in complaints[0]
    assert "c_second" in complaints[1]


async def test_a_model_that_cannot_be_described_does_not_hide_the_others(
    client: Client, triton: FakeTriton
) -> None:
    triton.ensembles.insert(0, FakeEnsemble("aaa", "@cf/x/aaa"))

    async def fault(request: Any, context: Any) -> None:
        if request.name == "aaa":
            await context.abort(grpc.StatusCode.NOT_FOUND, "gone")

    triton.config_fault = fault
    triton.ensembles.append(FakeEnsemble("zzz", "@cf/x/zzz"))

    async def served() -> bool:
        path = f"/client/v4/accounts/{ACCOUNT}/ai/run/@cf/x/zzz"
        return (await client.run(GOOD, path=path)).status == 200

    await until(served)


async def test_a_removed_model_is_5007_and_an_emptied_catalogue_is_503(
    client: Client, triton: FakeTriton
) -> None:
    triton.ensembles[0] = FakeEnsemble("other", "@cf/x/other")

    async def gone() -> bool:
        answer = await client.run(GOOD)
        return bool(answer.json["errors"]) and answer.error["code"] == 5007

    await until(gone)
    assert (await client.get("/readyz")).status == 200
    triton.ensembles.clear()

    async def empty() -> bool:
        return (await client.get("/readyz")).status == 503

    await until(empty)
    check_ai(await client.run(GOOD), 503, 3050, AWAY)
