"""What Cloudflare's AI Gateway adds: its path, its token, its options, by header and in the body."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.contract.test_errors import AUTHENTICATION_ERROR, check_ai, check_front
from tests.support.fake_triton import SST2, FakeEnsemble, FakeTriton, hold
from tests.support.harness import (
    ACCOUNT,
    ANY_TOKEN,
    RUN,
    TOKEN,
    Answer,
    Client,
    running_gateway,
    settings_for,
    until,
)

GATEWAY = f"/v1/{ACCOUNT}/mine/workers-ai/"
BY_BODY = f"/client/v4/accounts/{ACCOUNT}/ai/run"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
ENCODED = SST2.replace("/", "%2F")
PIZZA = {"text": "This pizza is great!"}
BINDING = {"cf-consn-model-id": SST2, "cf-consn-sdk-version": "2.0.0"}
CACHE_BYTES = 1_000_000


async def send(client: Client, path: str, payload: object, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.send("POST", path, json.dumps(payload).encode(), AUTH | named)


def status(answer: Answer) -> str | None:
    assert answer.status == 200, answer.body
    return answer.header("cf-aig-cache-status")


@pytest.mark.parametrize(
    "tail", [SST2, ENCODED, f"run/{SST2}", f"run/{ENCODED}", f"run%2F{ENCODED}", SST2.replace("@", "%40")]
)
async def test_the_model_may_stand_behind_run(client: Client, tail: str) -> None:
    plain = await client.run(PIZZA)
    answer = await client.run(PIZZA, path=GATEWAY + tail)
    assert (answer.status, answer.body) == (200, plain.body)


async def test_a_model_called_run_and_a_model_behind_run_do_not_hide_each_other(triton: FakeTriton) -> None:
    triton.ensembles = [
        FakeEnsemble("a", "mood", labels=("a", "b")),
        FakeEnsemble("b", "run/mood", labels=("c", "d")),
        FakeEnsemble("c", "run/alone", labels=("e", "f")),
    ]
    async with running_gateway(settings_for(triton)) as running:
        for tail, label in (
            ("mood", "a"),
            ("run/mood", "a"),
            ("run/run/mood", "c"),
            ("run/alone", "e"),
            ("run/run/alone", "e"),
        ):
            answer = await running.client.run(PIZZA, path=GATEWAY + tail)
            assert answer.json["result"][0]["label"] == label, tail
        client = running.client
        for tail in ("no", "run/no"):
            check_ai(await client.run(PIZZA, path=GATEWAY + tail), 400, 5007, "No such model no or task")
        check_ai(await client.run(PIZZA, path=GATEWAY + "run/"), 400, 5007, "No such model run/ or task")
        # Elsewhere, run/ is no part of the path.
        rest = await client.run(PIZZA, path=f"{BY_BODY}/run/alone")
        assert rest.json["result"][0]["label"] == "e"


@pytest.mark.parametrize("path", [GATEWAY + SST2, "/ai-gateway/run?version=3"])
async def test_cf_aig_authorization_carries_the_token_beside_or_instead_of_the_other(
    client: Client, path: str
) -> None:
    body = json.dumps(PIZZA | {"inputs": PIZZA}).encode()

    async def answer(**headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.send("POST", path, body, BINDING | named)

    good, other, bad = f"Bearer {TOKEN}", f"Bearer {ANY_TOKEN}", "Bearer unknown"
    assert (await answer(cf_aig_authorization=good)).status == 200
    assert (await answer(cf_aig_authorization=good, Authorization=good)).status == 200
    # Two different ones: each must be valid.
    assert (await answer(cf_aig_authorization=other, Authorization=good)).status == 200
    assert (await answer(cf_aig_authorization=good, X_Auth_Email="a@b", X_Auth_Key=TOKEN)).status == 200
    assert (await answer(cf_aig_authorization=good, X_Auth_Email="a@b")).status == 200
    for headers in (
        {"cf_aig_authorization": bad},
        {"cf_aig_authorization": bad, "Authorization": good},
        {"cf_aig_authorization": good, "Authorization": bad},
    ):
        check_front(await answer(**headers), 401, AUTHENTICATION_ERROR)
    malformed = await answer(cf_aig_authorization="Basic x", Authorization=good)
    assert (malformed.status, malformed.error["code"]) == (400, 6003)
    assert malformed.error["error_chain"] == [
        {"code": 6111, "message": "Invalid format for cf-aig-authorization header"}
    ]
    assert (await answer()).error["code"] == 9106


async def test_cf_aig_authorization_must_be_for_the_account_of_the_path(client: Client) -> None:
    path = (GATEWAY + SST2).replace(ACCOUNT, "another")
    foreign = await client.send("POST", path, b"{}", {"cf-aig-authorization": f"Bearer {TOKEN}"})
    check_front(foreign, 403, AUTHENTICATION_ERROR)
    both = {"cf-aig-authorization": f"Bearer {TOKEN}", "Authorization": f"Bearer {ANY_TOKEN}"}
    check_front(await client.send("POST", path, b"{}", both), 403, AUTHENTICATION_ERROR)


async def test_the_rest_api_reads_authorization_alone(client: Client) -> None:
    only = await client.send("POST", RUN, b"{}", {"cf-aig-authorization": f"Bearer {TOKEN}"})
    assert only.error["code"] == 9106
    beside = await send(client, RUN, PIZZA, cf_aig_authorization="Bearer of-a-gateway-elsewhere")
    assert beside.status == 200


async def test_headers_about_logs_costs_and_retries_change_nothing(client: Client) -> None:
    plain = await client.run(PIZZA)
    for name, value in (
        ("cf-aig-gateway-id", "mine"),
        ("cf-aig-metadata", '{"user":1'),
        ("cf-aig-cache-key", "key"),
        ("cf-aig-collect-log", "perhaps"),
        ("cf-aig-max-attempts", "x"),
        ("cf-aig-skip-cache", "TRUE"),
        ("cf-aig-request-timeout", "60000"),
    ):
        for path in (RUN, GATEWAY + SST2):
            answer = await client.send("POST", path, json.dumps(PIZZA).encode(), AUTH | {name: value})
            assert (answer.status, answer.body) == (200, plain.body), name


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cf-aig-skip-cache", "yes", "must be 'true' or 'false'"),
        ("cf-aig-cache-ttl", "-1", "must be an integer from 0 to 999999999"),
        ("cf-cache-ttl", "1.5", "must be an integer from 0 to 999999999"),
        ("cf-aig-request-timeout", "0", "must be an integer from 1 to 999999999"),
        ("cf-aig-request-timeout", "5s", "must be an integer from 1 to 999999999"),
        ("cf-aig-request-timeout", "9" * 5000, "must be an integer from 1 to 999999999"),
        ("cf-aig-request-timeout", "\xb2", "must be an integer from 1 to 999999999"),
    ],
)
async def test_a_malformed_option_is_a_clear_400(client: Client, name: str, value: str, words: str) -> None:
    shown = name.replace("cf-cache", "cf-aig-cache")
    for path in (RUN, BY_BODY, GATEWAY + SST2):
        answer = await client.send("POST", path, json.dumps(PIZZA).encode(), AUTH | {name: value})
        check_ai(answer, 400, 5006, f"Bad input: Error: header '{shown}' {words}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"skipCache": "true"}, "Type mismatch of '/options/gateway/skipCache', 'boolean' not in 'string'"),
        ({"cacheTtl": 1.5}, "Type mismatch of '/options/gateway/cacheTtl', 'integer' not in 'number'"),
        ({"cacheTtl": True}, "Type mismatch of '/options/gateway/cacheTtl', 'integer' not in 'boolean'"),
        ({"cacheTtl": -1}, "'/options/gateway/cacheTtl' must be >= 0"),
        ({"requestTimeoutMs": 0}, "'/options/gateway/requestTimeoutMs' must be >= 1"),
        (
            {"requestTimeoutMs": "5"},
            "Type mismatch of '/options/gateway/requestTimeoutMs', 'integer' not in 'string'",
        ),
    ],
)
async def test_a_malformed_option_of_the_body_is_a_clear_400(
    client: Client, options: dict[str, object], words: str
) -> None:
    given = {"options": {"gateway": options}}
    for path, payload in (
        (RUN, PIZZA | given),
        (BY_BODY, {"model": SST2, "input": PIZZA} | given),
    ):
        check_ai(await client.run(payload, path=path), 400, 5006, f"Bad input: Error: {words}")
    answer = await send(client, "/ai-gateway/run?version=3", {"inputs": PIZZA} | given, **BINDING)
    assert (answer.status, answer.json["description"]) == (400, f"Error: {words}")


@pytest.mark.parametrize("options", [None, 5, {"gateway": "mine"}, {"gateway": {"id": 5, "cacheTtl": None}}])
async def test_what_is_no_option_is_ignored(client: Client, options: object) -> None:
    assert (await client.run(PIZZA | {"options": options})).status == 200


async def test_the_cache_is_bypassed_where_the_caller_says_so(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, cache_bytes=CACHE_BYTES)) as running:
        client = running.client
        skipping: dict[str, Any] = {"options": {"gateway": {"id": "mine", "skipCache": True}}}
        assert status(await client.run(PIZZA)) == "MISS"
        ways = [
            await send(client, RUN, PIZZA, cf_aig_skip_cache="true"),
            await send(client, RUN, PIZZA, cf_skip_cache="true"),
            await send(client, RUN, PIZZA, cf_aig_cache_ttl="0"),
            await send(client, GATEWAY + SST2, PIZZA, cf_aig_skip_cache="true"),
            await client.run({"model": SST2, "input": PIZZA} | skipping, path=BY_BODY),
            await send(client, "/ai-gateway/run?version=3", {"inputs": PIZZA} | skipping, **BINDING),
        ]
        assert [status(answer) for answer in ways] == ["MISS"] * len(ways)
        assert len(triton.texts) == 1 + len(ways)
        # What came past the cache is not in it, and what was in it stays.
        await send(client, RUN, {"text": "another"}, cf_aig_skip_cache="true")
        assert await client.metric("tritonflare_cache_entries") == 1
        assert status(await client.run(PIZZA)) == "HIT"
        # The body's word is the caller's last.
        given = {"options": {"gateway": {"skipCache": False}}}
        assert status(await send(client, RUN, PIZZA | given, cf_aig_skip_cache="true")) == "HIT"


async def test_a_lifetime_is_that_of_the_entries_which_the_request_adds(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, cache_bytes=CACHE_BYTES)) as running:
        client = running.client
        assert status(await client.run({"text": "for ever"})) == "MISS"
        assert status(await send(client, RUN, {"text": "short"}, cf_aig_cache_ttl="1")) == "MISS"
        assert status(await send(client, RUN, {"text": "for ever"}, cf_aig_cache_ttl="1")) == "HIT"
        assert status(await client.run({"text": "short"})) == "HIT"
        await asyncio.sleep(1.1)
        assert status(await client.run({"text": "short"})) == "MISS"
        assert status(await client.run({"text": "for ever"})) == "HIT"


async def test_the_deadline_in_the_body_counts_more_than_that_of_the_header(
    client: Client, triton: FakeTriton
) -> None:
    triton.infer_fault = lambda request, context: asyncio.sleep(0.6)
    body = PIZZA | {"options": {"gateway": {"requestTimeoutMs": 20_000}}}
    assert (await send(client, GATEWAY + SST2, body, cf_aig_request_timeout="300")).status == 200
    answer = await send(client, GATEWAY + SST2, PIZZA, cf_aig_request_timeout="300")
    check_ai(answer, 408, 3007, "Request timeout")


@pytest.mark.parametrize("way", ["header", "body", "binding"])
async def test_a_clients_own_deadline_ends_its_request_and_not_the_call(
    client: Client, triton: FakeTriton, way: str
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    given = {"options": {"gateway": {"requestTimeoutMs": 300}}}
    began = asyncio.get_running_loop().time()
    if way == "header":
        answer = await send(client, GATEWAY + SST2, PIZZA, cf_aig_request_timeout="300")
    elif way == "body":
        answer = await client.run(PIZZA | given)
    else:
        answer = await send(client, "/ai-gateway/run?version=3", {"inputs": PIZZA} | given, **BINDING)
    assert 0.25 < asyncio.get_running_loop().time() - began < 3
    if way == "binding":
        assert (answer.status, answer.json["internalCode"]) == (408, 3007)
    else:
        check_ai(answer, 408, 3007, "Request timeout")
    assert (triton.running, triton.cancelled) == (1, 0)
    (call,) = [request for request in triton.requests if request.model_name == "sst2"][-1:]
    assert not call.parameters
    release.set()

    async def ended() -> bool:
        return triton.running == 0

    await until(ended)
    assert triton.cancelled == 0


async def test_a_clients_own_deadline_does_not_lengthen_the_servers(triton: FakeTriton) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with running_gateway(settings_for(triton, request_timeout_s=0.3)) as running:
        answer = await send(running.client, RUN, PIZZA, cf_aig_request_timeout="60000")
        check_ai(answer, 408, 3007, "Request timeout")
        release.set()
