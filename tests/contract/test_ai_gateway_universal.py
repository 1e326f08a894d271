"""AI Gateway's universal endpoint, and what ``env.AI.gateway(id)`` asks beside it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.contract.test_errors import AUTHENTICATION_ERROR, check_ai, check_front
from tests.support.fake_triton import SST2, FakeTriton, hold, read_texts
from tests.support.harness import (
    ACCOUNT,
    ANY_TOKEN,
    TOKEN,
    Answer,
    Client,
    running_gateway,
    settings_for,
)

PUBLIC = f"/v1/{ACCOUNT}/mine"
BINDING = "/ai-gateway/universal/run/mine"
PROXY = f"/client/v4/accounts/{ACCOUNT}/ai/run/proxy"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
PIZZA = {"text": "This pizza is great!"}
BAD = "Bad input: Error: "


def step(endpoint: str = SST2, query: object = PIZZA, /, **other: Any) -> dict[str, Any]:
    return {"provider": "workers-ai", "endpoint": endpoint, "headers": {}, "query": query} | other


OPENAI = step("chat/completions", {"model": "gpt"}, provider="openai")


async def run(client: Client, *steps: object, path: str = PUBLIC, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.send("POST", path, json.dumps(steps).encode(), AUTH | named)


@pytest.mark.parametrize("path", [PUBLIC, PUBLIC + "/", BINDING])
@pytest.mark.parametrize("endpoint", [SST2, f"run/{SST2}", f"/run/{SST2}"])
async def test_it_answers_as_the_rest_api_does(client: Client, path: str, endpoint: str) -> None:
    plain = await client.run(PIZZA)
    answer = await run(client, step(endpoint), path=path)
    assert (answer.status, answer.body) == (200, plain.body)
    assert answer.header("content-type") == "application/json"
    assert answer.header("cf-aig-step") == "0"
    assert answer.header("cf-ai-neurons") == plain.header("cf-ai-neurons")
    sample = f'tritonflare_requests_total{{code="0",model="{SST2}",status="200"}}'
    assert await client.metric(sample) == 2


async def test_the_first_step_that_succeeds_answers(client: Client, triton: FakeTriton) -> None:
    answer = await run(client, OPENAI, step("@cf/no/such"), step(SST2, {"text": ""}), step(), step())
    assert (answer.status, answer.header("cf-aig-step")) == (200, "3")
    assert triton.texts == [b"This pizza is great!"]


async def test_when_no_step_succeeds_the_error_is_of_the_last_one_for_workers_ai(client: Client) -> None:
    only = await run(client, OPENAI, OPENAI | {"provider": "x" * 300})
    check_ai(only, 400, 5006, f"{BAD}provider 'openai' is not served here, only 'workers-ai' is")
    last = await run(client, step("@cf/no/such"), step(SST2, {}), OPENAI)
    check_ai(last, 400, 5006, f"{BAD}required properties at '/' are 'text'")
    assert last.header("cf-aig-step") is None
    unknown = await run(client, step(SST2, {}), step("run/@cf/no/such"))
    check_ai(unknown, 400, 5007, "No such model @cf/no/such or task")


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (step(), "Type mismatch of '/', 'array' not in 'object'"),
        ([], "Length of '/' must be >= 1 not met"),
        ([step()] * 11, "Length of '/' must be <= 10"),
        (["a"], "Type mismatch of '/0', 'object' not in 'string'"),
        ([step(), {"provider": "openai"}], "required properties at '/1' are 'provider,endpoint,query'"),
        ([step(provider=1)], "Type mismatch of '/0/provider', 'string' not in 'number','integer'"),
        ([step(endpoint=None)], "Type mismatch of '/0/endpoint', 'string' not in 'null'"),
        ([step(headers=["a"])], "Type mismatch of '/0/headers', 'object' not in 'array','binary'"),
        ([step(headers=0)], "Type mismatch of '/0/headers', 'object' not in 'number','integer'"),
        (
            [step(headers={"CF-AIG-Skip-Cache": "perhaps"})],
            "header 'cf-aig-skip-cache' must be 'true' or 'false'",
        ),
    ],
)
async def test_a_malformed_request_is_a_clear_400(client: Client, payload: object, words: str) -> None:
    answer = await client.run(payload, path=PUBLIC)
    check_ai(answer, 400, 5006, BAD + words)
    check_ai(await client.run(b"[", path=PUBLIC), 400, 3003, NOT_JSON)


NOT_JSON = "Request is missing headers or body: the body is not valid JSON"


async def test_options_of_a_step_count_before_those_of_the_request(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, cache_bytes=1_000_000)) as running:
        client = running.client

        async def status(headers: dict[str, Any], **outer: str) -> str | None:
            answer = await run(client, step(headers=headers), **outer)
            assert answer.status == 200, answer.body
            return answer.header("cf-aig-cache-status")

        assert await status({}) == "MISS"
        assert await status({}) == "HIT"
        assert await status({"cf-aig-skip-cache": "true"}) == "MISS"
        assert await status({}, cf_aig_skip_cache="true") == "MISS"
        assert await status({"Cf-Aig-Skip-Cache": "false"}, cf_aig_skip_cache="true") == "HIT"
        assert await status({"cf-aig-cache-ttl": "0", "cf-aig-metadata": {"a": 1}}) == "MISS"


@pytest.mark.parametrize(
    "slow",
    [step(headers={"cf-aig-request-timeout": "200"}), step(config={"requestTimeout": 200})],
    ids=["header", "config"],
)
async def test_a_step_that_takes_too_long_is_given_up_for_the_next(
    client: Client, triton: FakeTriton, slow: dict[str, Any]
) -> None:
    release = asyncio.Event()

    async def fault(request: Any, context: Any) -> None:
        if read_texts(request) == [b"This pizza is great!"]:
            await release.wait()

    triton.infer_fault = fault
    answer = await run(client, slow, step(SST2, {"text": "quick"}))
    assert (answer.status, answer.header("cf-aig-step")) == (200, "1")
    assert triton.cancelled == 0
    release.set()


async def test_all_steps_together_have_the_time_of_one_request(triton: FakeTriton) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with running_gateway(settings_for(triton, request_timeout_s=0.5)) as running:
        began = asyncio.get_running_loop().time()
        check_ai(await run(running.client, *[step()] * 10), 408, 3007, "Request timeout")
        assert asyncio.get_running_loop().time() - began < 3
        release.set()


async def test_each_step_counts_in_the_rate(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, requests_per_minute=2, max_batch_texts=2)) as running:
        first = await run(running.client, step(SST2, {"text": ""}), step())
        assert (first.status, first.header("cf-aig-step")) == (200, "1")
        answer = await run(running.client, step())
        assert (answer.status, answer.error["code"]) == (429, 3021)
        assert await running.client.metric("tritonflare_requests_in_flight") == 0


async def test_a_batch_is_answered_in_the_form_of_a_finished_one(client: Client) -> None:
    batch = {"requests": [PIZZA, {"text": ""}]}
    plain = await client.run(batch)
    answer = await run(client, step(SST2, batch))
    assert (answer.status, answer.json["result"]["usage"]) == (200, plain.json["result"]["usage"])
    assert [item["success"] for item in answer.json["result"]["responses"]] == [True, False]


@pytest.mark.parametrize("path", [PUBLIC, BINDING])
async def test_the_request_itself_needs_a_token_whatever_its_steps_carry(client: Client, path: str) -> None:
    body = json.dumps([step(headers={"Authorization": f"Bearer {TOKEN}"})]).encode()
    assert (await client.send("POST", path, body, {})).error["code"] == 9106
    wrong = await client.send("POST", path, body, {"Authorization": "Bearer unknown"})
    check_front(wrong, 401, AUTHENTICATION_ERROR)
    own = await client.send("POST", path, body, {"cf-aig-authorization": f"Bearer {TOKEN}"})
    assert own.status == 200
    # One server is gateway and provider: a token for the provider is not looked at.
    foreign = step(headers={"authorization": "Bearer of-the-real-provider"})
    assert (await run(client, foreign, path=path)).status == 200
    assert (await client.send("GET", path, None, AUTH)).status == 405


URL = "/ai-gateway/gateways/mine/url/"


async def test_the_gateways_address_is_the_one_that_was_called(client: Client) -> None:
    async def url(provider: str, **headers: str) -> str:
        answer = await client.send("GET", URL + provider, None, AUTH | headers)
        assert list(answer.json) == ["result", "success", "errors", "messages"]
        found: str = answer.json["result"]["url"]
        return found

    assert await url("universal") == f"http://gateway/v1/{ACCOUNT}/mine/"
    assert await url("workers-ai") == f"http://gateway/v1/{ACCOUNT}/mine/workers-ai"
    # The binding's own host is no address: that of the connection is.
    wrapped = await url("workers-ai", Host="workers-binding.ai")
    assert wrapped == f"http://127.0.0.1:{client.port}/v1/{ACCOUNT}/mine/workers-ai"
    anybody = await url("universal", Authorization=f"Bearer {ANY_TOKEN}")
    assert anybody == "http://gateway/v1/local/mine/"
    answer = await client.send("POST", wrapped.partition(str(client.port))[2] + f"/{SST2}", b"{}")
    assert answer.error["code"] == 5006
    odd = await client.send("GET", "/ai-gateway/gateways/a%2Fb/url/workers-ai", None, AUTH)
    assert odd.json["result"]["url"] == f"http://gateway/v1/{ACCOUNT}/a%2Fb/workers-ai"
    other = await client.send("GET", URL + "openai", None, AUTH)
    check_ai(other, 400, 5006, f"{BAD}provider 'openai' is not served here, only 'workers-ai' is")
    assert (await client.send("GET", URL + "universal", None, {})).error["code"] == 9106


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_there_are_no_logs(client: Client, method: str) -> None:
    answer = await client.send(method, "/ai-gateway/gateways/mine/logs/1", b"{}", AUTH)
    assert (answer.status, answer.error) == (
        404,
        {"code": 7002, "message": "This server keeps no logs of requests"},
    )


async def test_wrangler_forwards_these_calls_too(client: Client) -> None:
    async def forward(method: str, path: str, body: bytes | None = None) -> Answer:
        headers = AUTH | {"X-Forwarded": f"https://workers-binding.ai{path}"}
        return await client.send(method, PROXY, body, headers)

    answer = await forward("POST", BINDING, json.dumps([step()]).encode())
    assert (answer.status, answer.header("cf-aig-step")) == (200, "0")
    assert (await forward("GET", URL + "workers-ai")).json["result"]["url"].endswith("/mine/workers-ai")
    assert (await forward("PATCH", "/ai-gateway/gateways/mine/logs/1", b"{}")).status == 404
    assert (await forward("POST", URL + "workers-ai", b"")).error["code"] == 7001


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/chat/completions/", "/v1/images/generations", "/v1/messages/batches"],
)
async def test_paths_of_other_apis_are_no_accounts(client: Client, path: str) -> None:
    answer = await client.send("POST", path, b'{"model":"m","messages":[]}', AUTH)
    assert (answer.status, answer.error) == (400, {"code": 7000, "message": "No route for that URI"})
