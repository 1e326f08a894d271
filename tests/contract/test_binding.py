"""What Workers bindings send, byte for byte, and what they get."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json

import pytest

from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import (
    ACCOUNT,
    ANY_TOKEN,
    TOKEN,
    UUID,
    Answer,
    Client,
    running_gateway,
    settings_for,
)

SCORES = [
    {"label": "NEGATIVE", "score": 0.0002034269780552065},
    {"label": "POSITIVE", "score": 0.9997965730219448},
]
V3 = "/run?version=3"
PROXY = f"/client/v4/accounts/{ACCOUNT}/ai/run/proxy"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
SENT = {
    "cf-consn-sdk-version": "2.0.0",
    "cf-consn-model-id": SST2,
    "content-type": "application/json",
}
GOOD = b'{"inputs":{"text":"a"},"options":{}}'
TENSORS = json.dumps(
    {"input": [{"type": "str", "shape": [1], "name": "input_text", "value": ["a"]}], "stream": False}
).encode()
ONE_VALUE = "Error: tensor 'input_text' must hold one value"
NUMBER = "Error: Type mismatch of '/text', 'string' not in 'number'"
MODELS = "https://workers-binding.ai/ai-api/models/search"
MISSING = "Error: required properties at '/' are 'text'"


def wrapped(url: str, **inner: str) -> dict[str, str]:
    """The headers with which miniflare forwards a call."""
    named = {f"MF-Header-{name}": value for name, value in (SENT | inner).items()}
    return {"MF-Binding": "AI", "MF-URL": url} | named


def check_scores(answer: Answer) -> None:
    assert (answer.status, answer.json) == (200, SCORES)
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-encoding") is None
    assert UUID.fullmatch(answer.header("cf-ai-req-id") or "")
    assert answer.header("cf-ai-neurons") == "0.01"


def check_error(answer: Answer, status: int, code: int, description: str, prefix: str = "") -> None:
    message = f"AiError: {prefix}{description}"
    expected = {
        "internalCode": code,
        "httpCode": status,
        "name": "AiError",
        "message": message,
        "description": description,
    }
    assert (answer.status, answer.json) == (status, expected)
    assert answer.header("content-type") == "application/json"
    assert UUID.fullmatch(answer.header("cf-ai-req-id") or "")


@pytest.mark.parametrize("path", [V3, "/ai-gateway/run?version=3"])
async def test_the_native_binding_gets_the_bare_array(client: Client, path: str) -> None:
    check_scores(await client.send("POST", path, GOOD, AUTH | SENT))


async def test_a_prefix_before_the_model_is_left_out(client: Client) -> None:
    sent = SENT | {"cf-consn-model-id": f"canary:{SST2}"}
    check_scores(await client.send("POST", V3, GOOD, AUTH | sent))


async def test_version_2_is_gzip_that_no_header_announces(client: Client) -> None:
    sent = {
        "cf-consn-sdk-version": "1.1.0",
        "cf-consn-model-id": SST2,
        "content-type": "text/plain;charset=UTF-8",
        "content-encoding": "application/json",
    }
    body = b'{"inputs":{"text":"a"},"options":{"debug":true}}'
    answer = await client.send("POST", "/run?version=2", body, AUTH | sent)
    assert json.loads(gzip.decompress(answer.body)) == SCORES
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-encoding") is None
    logs = json.loads(base64.b64decode(answer.header("cf-ai-logs") or ""))
    assert logs == [{"tokens": 3, "truncated": False, "neurons": 0.01}]

    quiet = await client.send("POST", "/run?version=2", b'{"inputs":{"text":"a"},"options":{}}', AUTH | sent)
    assert quiet.header("cf-ai-logs") is None


@pytest.mark.parametrize("options", [{"queueRequest": True}, {}])
async def test_a_batch_is_answered_at_once_as_a_finished_one(
    client: Client, triton: FakeTriton, options: dict[str, bool]
) -> None:
    inputs = {"requests": [{"text": "a", "external_reference": "first"}, {"text": ""}, {"text": "b c"}]}
    body = json.dumps({"inputs": inputs, "options": options}).encode()
    answer = await client.send("POST", V3, body, AUTH | SENT)
    request_id = answer.header("cf-ai-req-id") or ""
    message = f"AiError: Bad input: Error: Length of '/text' must be >= 1 not met ({request_id})"
    assert UUID.fullmatch(request_id)
    assert (answer.status, answer.json) == (
        200,
        {
            "responses": [
                {"id": 0, "result": SCORES, "success": True, "external_reference": "first"},
                {
                    "id": 1,
                    "result": {},
                    "success": False,
                    "errors": [{"message": message, "code": 5006}],
                    "external_reference": None,
                },
                {"id": 2, "result": SCORES, "success": True, "external_reference": None},
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7},
        },
    )
    assert answer.header("content-type") == "application/json"
    assert answer.header("cf-ai-neurons") == "0.02"
    assert sorted(triton.texts) == [b"a", b"b c"]


async def test_one_text_that_is_to_be_queued_is_a_batch_of_one(client: Client) -> None:
    body = b'{"inputs":{"text":"a"},"options":{"queueRequest":true}}'
    answer = await client.send("POST", V3, body, AUTH | SENT)
    assert [item["result"] for item in answer.json["responses"]] == [SCORES]


@pytest.mark.parametrize(
    ("inputs", "description"),
    [
        ({"requests": []}, "Error: Length of '/requests' must be >= 1 not met"),
        ({"requests": [{"text": "a"}] * 101}, "Error: Length of '/requests' must be <= 100"),
        ({"request_id": "0"}, "Error: '/request_id' is not known, a batch is answered at once"),
        ({}, "Error: required properties at '/' are 'requests'"),
    ],
)
async def test_what_is_no_batch_is_5006_in_the_bindings_form(
    client: Client, inputs: object, description: str
) -> None:
    body = json.dumps({"inputs": inputs, "options": {"queueRequest": True}}).encode()
    answer = await client.send("POST", V3, body, AUTH | SENT)
    check_error(answer, 400, 5006, description, "Bad input: ")


async def test_a_batch_counts_as_many_texts_for_rate_and_room(triton: FakeTriton) -> None:
    limits = {"requests_per_minute": 3, "max_batch_texts": 3, "max_requests_in_flight": 3}
    async with running_gateway(settings_for(triton, **limits)) as running:
        client = running.client
        two, three = (
            json.dumps({"inputs": {"requests": [{"text": "a"}] * count}, "options": {}}).encode()
            for count in (2, 3)
        )
        assert (await client.send("POST", V3, two, AUTH | SENT)).status == 200
        refused = await client.send("POST", V3, three, AUTH | SENT)
        assert (refused.status, refused.json["internalCode"]) == (429, 3021)
        assert len(triton.texts) == 2


async def test_a_batch_of_which_nothing_was_answered_fails_as_one_text_would(
    client: Client, triton: FakeTriton
) -> None:
    await triton.disappear()
    body = b'{"inputs":{"requests":[{"text":"a"},{"text":"b"}]},"options":{"queueRequest":true}}'
    answer = await client.send("POST", V3, body, AUTH | SENT)
    check_error(answer, 503, 3050, "The model server is not available, please try again.")


async def test_older_generations_take_no_batches(client: Client) -> None:
    body = b'{"inputs":{"requests":[{"text":"a"}]},"options":{"queueRequest":true}}'
    answer = await client.send("POST", "/run?version=2", body, AUTH | SENT)
    check_error(answer, 400, 5006, MISSING, "Bad input: ")


@pytest.mark.parametrize("body", [TENSORS, gzip.compress(TENSORS)], ids=["plain", "gzip"])
async def test_the_tensor_form_keeps_the_id_that_the_client_made(client: Client, body: bytes) -> None:
    made = "0b8e4d5c-0a51-4f0e-8c53-0a4a2b7c9d11"
    sent = {
        "cf-consn-sdk-version": "1.0.53",
        "cf-consn-model-id": SST2,
        "content-encoding": "gzip",
        "cf-ai-req-id": made,
    }
    answer = await client.send("POST", "/run", body, AUTH | sent)
    values = [[entry["score"] for entry in SCORES]]
    logits = {"type": "float32", "shape": [1, 2], "name": "logits", "value": values}
    assert (answer.status, answer.json) == (200, {"result": [logits]})
    assert answer.header("cf-ai-req-id") == made
    forged = await client.send("POST", "/run", body, AUTH | sent | {"cf-ai-req-id": "x" * 36})
    assert UUID.fullmatch(forged.header("cf-ai-req-id") or "")


@pytest.mark.parametrize(
    ("payload", "description"),
    [
        ({"inputs": {}}, MISSING),
        ({}, MISSING),
        ([], MISSING),
        ({"inputs": {"text": ""}}, "Error: Length of '/text' must be >= 1 not met"),
        ({"inputs": {"text": 1.5}}, NUMBER),
    ],
)
async def test_bad_input_is_5006_in_the_bindings_form(
    client: Client, payload: object, description: str
) -> None:
    answer = await client.send("POST", V3, json.dumps(payload).encode(), AUTH | SENT)
    check_error(answer, 400, 5006, description, "Bad input: ")


@pytest.mark.parametrize(
    ("payload", "description"),
    [
        ({"input": []}, MISSING),
        ({"input": [{"name": "other", "value": ["a"]}, 5]}, MISSING),
        ({"input": [{"name": "input_text", "value": [1.5]}]}, NUMBER),
        ({"input": [{"name": "input_text", "value": ["a", "b"]}]}, ONE_VALUE),
        ({"input": [{"name": "input_text"}]}, ONE_VALUE),
    ],
)
async def test_bad_tensors_are_5006(client: Client, payload: object, description: str) -> None:
    sent = {"cf-consn-model-id": SST2}
    answer = await client.send("POST", "/run", json.dumps(payload).encode(), AUTH | sent)
    check_error(answer, 400, 5006, description, "Bad input: ")


@pytest.mark.parametrize(
    ("path", "headers", "body", "expected"),
    [
        (V3, {}, GOOD, (400, 3003, "Request is missing headers or body: cf-consn-model-id")),
        (V3, {"cf-consn-model-id": "@cf/no/model"}, GOOD, (400, 5007, "No such model @cf/no/model or task")),
        (V3, SENT, b"{", (400, 3003, "Request is missing headers or body: the body is not valid JSON")),
        (
            "/run",
            SENT,
            gzip.compress(TENSORS)[:-3],
            (400, 3003, "Request is missing headers or body: the body is not valid gzip"),
        ),
        (
            "/run",
            SENT,
            gzip.compress(b" " * (1024 * 1024 + 1)),
            (413, 3006, "Request is too large: the limit is 1048576 bytes"),
        ),
    ],
    ids=["header", "model", "json", "gzip", "size"],
)
async def test_other_refusals_have_the_same_form(
    client: Client, path: str, headers: dict[str, str], body: bytes, expected: tuple[int, int, str]
) -> None:
    check_error(await client.send("POST", path, body, AUTH | headers), *expected)


async def test_a_busy_gateway_sends_retry_after(client: Client, triton: FakeTriton) -> None:
    await triton.disappear()
    answer = await client.send("POST", V3, GOOD, AUTH | SENT)
    check_error(answer, 503, 3050, "The model server is not available, please try again.")
    assert answer.header("retry-after") == "1"


async def test_versions_and_websockets_that_do_not_exist_are_refused_in_words(client: Client) -> None:
    answer = await client.send("POST", "/run?version=4", GOOD, AUTH | SENT)
    check_error(answer, 400, 5006, "Error: query parameter 'version' must be 2 or 3", "Bad input: ")
    upgrade = {"Upgrade": "websocket", "Connection": "close, Upgrade"}
    answer = await client.send("GET", "/run?version=3&body=%7B%7D", None, AUTH | SENT | upgrade)
    words = "Error: option 'websocket' is not supported by this server"
    check_error(answer, 400, 5006, words, "Bad input: ")


@pytest.mark.parametrize("path", [V3, "/ai-gateway/run?version=3", "/ai-api/models/search"])
async def test_every_binding_route_needs_a_token(client: Client, path: str) -> None:
    method, body = ("GET", None) if "models" in path else ("POST", GOOD)
    for headers, status, code in (({}, 400, 9106), ({"Authorization": "Bearer wrong"}, 401, 10000)):
        for sent in (SENT, wrapped(f"https://workers-binding.ai{path}")):
            at = "/" if "MF-URL" in sent else path
            answer = await client.send(method, at, body, headers | sent)
            # The front's envelope, which the binding throws as "9106: Missing …".
            assert (answer.status, answer.error["code"]) == (status, code)
    for token in (TOKEN, ANY_TOKEN):
        answer = await client.send(method, path, body, SENT | {"Authorization": f"Bearer {token}"})
        assert answer.status == 200


async def test_what_miniflare_wraps_is_answered_like_the_call_inside(client: Client) -> None:
    url = "https://workers-binding.ai/run?version=3"
    check_scores(await client.send("POST", "/", GOOD, AUTH | wrapped(url)))
    # A Worker can pass the token itself, as extraHeaders.
    check_scores(await client.send("POST", "/", GOOD, wrapped(url, authorization=f"Bearer {TOKEN}")))
    check_error(await client.send("POST", "/", b"{}", AUTH | wrapped(url)), 400, 5006, MISSING, "Bad input: ")
    models = await client.send("GET", "/", None, AUTH | wrapped(MODELS))
    assert [model["name"] for model in models.json["result"]] == [SST2]


@pytest.mark.parametrize(
    "url", ["https://example.com/run?version=3", "https://workers-binding.ai/other", "http://[", "/run", ""]
)
async def test_miniflare_calls_of_other_bindings_have_no_route(client: Client, url: str) -> None:
    answer = await client.send("POST", "/", GOOD, AUTH | wrapped(url))
    assert (answer.status, answer.error["code"]) == (400, 7000)


async def test_a_wrapped_call_cannot_reach_the_api_without_a_token(client: Client) -> None:
    path = f"/client/v4/accounts/{ACCOUNT}/ai/run/{SST2}"
    answer = await client.send("POST", "/", GOOD, wrapped(f"https://workers-binding.ai{path}"))
    assert (answer.status, answer.error["code"]) == (400, 9106)


async def test_the_websocket_probe_is_harmless_and_needs_no_token(client: Client) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "close, Upgrade", "Sec-WebSocket-Key": "x"}
    answer = await client.send("GET", "/?MF-Binding=AI", None, upgrade)
    # The playground, to which the probe pays no attention; without it, a refusal does as well.
    assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded": "https://workers-binding.ai/run?version=3"},
        {"X-Forwarded": "http://workers-binding.ai/ai-gateway/run?version=3"},
        {},
    ],
)
async def test_wrangler_reaches_the_binding_through_the_api(client: Client, headers: dict[str, str]) -> None:
    check_scores(await client.send("POST", PROXY, GOOD, AUTH | SENT | headers))


async def test_the_sdk_version_decides_where_wrangler_forwards_no_url(client: Client) -> None:
    model = {"cf-consn-model-id": SST2}
    second = await client.send("POST", PROXY, GOOD, AUTH | model | {"cf-consn-sdk-version": "1.1.0"})
    assert json.loads(gzip.decompress(second.body)) == SCORES
    first = await client.send("POST", PROXY, TENSORS, AUTH | model | {"cf-consn-sdk-version": "1.0.53"})
    assert first.json["result"][0]["name"] == "logits"


async def test_the_proxy_lists_models_and_knows_nothing_else(client: Client) -> None:
    forwarded = {"X-Forwarded": "https://workers-binding.ai/ai-api/models/search?page=2"}
    assert (await client.send("GET", PROXY, None, AUTH | forwarded)).json["result"] == []
    for url in ("https://workers-binding.ai/metrics", "http://["):
        answer = await client.send("GET", PROXY, None, AUTH | {"X-Forwarded": url})
        assert answer.error["code"] == 7000
    answer = await client.send("POST", PROXY.replace(ACCOUNT, "other"), GOOD, AUTH | SENT)
    assert (answer.status, answer.error["code"]) == (403, 10000)


async def test_binding_calls_are_counted_like_others(client: Client) -> None:
    await client.send("POST", V3, GOOD, AUTH | SENT)
    await client.send("POST", V3, b"{}", AUTH | SENT)
    for code, status in ((0, 200), (5006, 400)):
        sample = f'tritonflare_requests_total{{code="{code}",model="{SST2}",status="{status}"}}'
        assert await client.metric(sample) == 1


@pytest.mark.parametrize("length", [b"\xb2", b"9" * 5000, b"9999999"])
async def test_a_workers_own_framing_headers_is_not_believed(client: Client, length: bytes) -> None:
    sent = AUTH | wrapped("https://workers-binding.ai/run?version=3")
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items()).encode()
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        + head
        + b"MF-Header-Content-Length: "
        + length
        + b"\r\n\r\n"
        + body
    )
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 "), answer


async def test_over_the_rate_the_binding_gets_its_own_form(triton: FakeTriton) -> None:
    settings = settings_for(triton, requests_per_minute=1, max_batch_texts=1)
    async with running_gateway(settings) as running:
        client = running.client
        check_scores(await client.send("POST", V3, GOOD, AUTH | SENT))
        refused = await client.send("POST", V3, GOOD, AUTH | SENT)
        assert (refused.status, refused.json["internalCode"], refused.json["name"]) == (429, 3021, "AiError")
        models = {"X-Forwarded": "https://workers-binding.ai/ai-api/models/search"}
        assert (await client.send("GET", PROXY, None, AUTH | models)).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/livez", "/openapi.json", "/"])
async def test_a_wrapped_call_reaches_no_page_of_operators(client: Client, path: str) -> None:
    answer = await client.send("GET", "/", None, AUTH | wrapped(f"https://workers-binding.ai{path}"))
    assert (answer.status, answer.error["code"]) == (400, 7000)
