"""Local development: what the switch lets in without a token, and what it does not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.contract.test_binding import GOOD, PROXY, SENT, V3, check_scores, wrapped
from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import ACCOUNT, Running, running_gateway, settings_for


@pytest.fixture
async def open_gateway(triton: FakeTriton) -> AsyncIterator[Running]:
    async with running_gateway(settings_for(triton, binding_without_token=True)) as running:
        yield running


LOCAL = {"Host": "127.0.0.1:8787"}
WRAPPED = wrapped("https://workers-binding.ai/run?version=3")


async def test_with_the_switch_bindings_on_this_machine_need_no_token(open_gateway: Running) -> None:
    client = open_gateway.client
    for host in ("127.0.0.1:1", "localhost", "LOCALHOST:8787", "[::1]:8787", "workers-binding.ai"):
        check_scores(await client.send("POST", "/", GOOD, WRAPPED | {"Host": host}))
        check_scores(await client.send("POST", V3, GOOD, SENT | {"Host": host}))
    models = await client.send("GET", "/ai-api/models/search", None, {"Host": "workers-binding.ai"})
    assert models.status == 200


@pytest.mark.parametrize(
    "more",
    [
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Referer": "http://127.0.0.1:8787/"},
        {"Host": "rebound.example:8787"},
        {"Host": "127.0.0.1.example"},
        {"Host": "rebound.example", "MF-Header-Host": "127.0.0.1"},
        {"X-Forwarded-For": "192.0.2.1"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded": "https://workers-binding.ai/run?version=3"},
        {"X-Real-IP": "192.0.2.1"},
        {"X-Client-IP": "192.0.2.1"},
        {"X-Original-Host": "example.com"},
        {"X-Envoy-External-Address": "192.0.2.1"},
        {"CF-Connecting-IP": "192.0.2.1"},
        {"CDN-Loop": "proxy"},
        {"True-Client-IP": "192.0.2.1"},
        {"Forwarded": "for=192.0.2.1"},
        {"Via": "1.1 proxy"},
    ],
)
async def test_the_switch_opens_nothing_to_browsers_and_proxies(
    open_gateway: Running, more: dict[str, str]
) -> None:
    for path, sent in (("/", WRAPPED), (V3, SENT)):
        answer = await open_gateway.client.send("POST", path, GOOD, LOCAL | sent | more)
        assert (answer.status, answer.error["code"]) == (400, 9106)


async def test_the_switch_wants_a_header_that_no_simple_request_can_carry(open_gateway: Running) -> None:
    answer = await open_gateway.client.send("POST", V3, GOOD, LOCAL | {"Content-Type": "text/plain"})
    assert answer.error["code"] == 9106
    answer = await open_gateway.client.send("GET", "/ai-api/models/search", None, LOCAL)
    assert answer.error["code"] == 9106
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Headers": "cf-consn-model-id"}
    answer = await open_gateway.client.send("OPTIONS", V3, None, LOCAL | preflight)
    assert answer.status == 405
    assert not [name for name, _ in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("name", ["Accept", "Accept-Encoding", "Accept-Language", "User-Agent"])
async def test_the_bindings_host_alone_lets_no_browser_in(open_gateway: Running, name: str) -> None:
    # A page under that name, which the network's DNS has made to point here, asks as its own origin would.
    page = {"Host": "workers-binding.ai", name: "x"}
    answer = await open_gateway.client.send("GET", "/ai-api/models/search", None, page)
    assert answer.error["code"] == 9106


async def test_the_switch_opens_only_the_bindings_routes(open_gateway: Running) -> None:
    path = f"/client/v4/accounts/{ACCOUNT}/ai/run/{SST2}"
    for target in (path, PROXY):
        answer = await open_gateway.client.send("POST", target, GOOD, LOCAL | SENT)
        assert answer.error["code"] == 9106
    inside = wrapped(f"https://workers-binding.ai{path}")
    assert (await open_gateway.client.send("POST", "/", GOOD, LOCAL | inside)).error["code"] == 9106


async def test_a_wrong_token_is_refused_with_the_switch_too(open_gateway: Running) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    answer = await open_gateway.client.send("POST", V3, GOOD, LOCAL | SENT | wrong)
    assert answer.status == 401


async def test_a_wrong_token_for_the_gateway_is_refused_with_the_switch_too(open_gateway: Running) -> None:
    for header in ("cf-aig-authorization", "MF-Header-cf-aig-authorization"):
        sent = WRAPPED | {header: "Bearer wrong"}
        assert (await open_gateway.client.send("POST", "/", GOOD, LOCAL | sent)).status == 401
    wrong = SENT | {"cf-aig-authorization": "Bearer wrong"}
    assert (await open_gateway.client.send("POST", V3, GOOD, LOCAL | wrong)).status == 401


async def test_the_switch_opens_what_a_binding_asks_its_gateway_and_no_public_path_of_it(
    open_gateway: Running,
) -> None:
    client = open_gateway.client
    body = json.dumps([{"provider": "workers-ai", "endpoint": SST2, "query": {"text": "a"}}]).encode()
    universal, url = "/ai-gateway/universal/run/mine", "/ai-gateway/gateways/mine/url/workers-ai"
    for path, method, given in ((universal, "POST", body), (url, "GET", None)):
        forwarded = wrapped(f"https://workers-binding.ai{path}")
        assert (await client.send(method, "/", given, LOCAL | forwarded)).status == 200
        assert (await client.send(method, path, given, {"Host": "workers-binding.ai"})).status == 200
        page = {"Host": "workers-binding.ai", "Origin": "http://workers-binding.ai"}
        assert (await client.send(method, path, given, page)).error["code"] == 9106
    answer = await client.send("POST", f"/v1/{ACCOUNT}/mine", body, LOCAL | SENT)
    assert answer.error["code"] == 9106
