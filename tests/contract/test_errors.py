"""Every refusal: status, body bytes, headers."""

from __future__ import annotations

import json

import pytest

from gateway.api.playground import PLAYGROUND
from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import (
    ACCOUNT,
    ANY_TOKEN,
    RUN,
    TOKEN,
    UUID,
    Answer,
    Client,
    running_gateway,
    settings_for,
)

GOOD = b'{"text":"a"}'


def check_front(answer: Answer, status: int, body: bytes) -> None:
    """Refused by the API front: exact bytes, no AI request id."""
    assert (answer.status, answer.body) == (status, body)
    assert answer.header("content-type") == "application/json"
    assert answer.header("cf-ai-req-id") is None
    assert answer.header("cf-ray")
    assert answer.header("server") is None


def check_ai(answer: Answer, status: int, code: int, text: str) -> None:
    """Refused by the AI service: exact bytes around the request id, which is the header's."""
    request_id = answer.header("cf-ai-req-id")
    assert request_id is not None
    assert UUID.fullmatch(request_id)
    message = json.dumps(f"AiError: {text} ({request_id})", ensure_ascii=False)
    expected = (
        f'{{"errors":[{{"message":{message},"code":{code}}}],"success":false,"result":{{}},"messages":[]}}'
    )
    assert (answer.status, answer.body.decode()) == (status, expected)
    assert answer.header("content-type") == "application/json"
    assert answer.header("cf-ai-neurons") is None
    assert answer.header("cf-ray")


NO_ROUTE = (
    b'{"result":null,"success":false,'
    b'"errors":[{"code":7000,"message":"No route for that URI"}],"messages":[]}'
)


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/client/v4",
        f"/client/v4/accounts/{ACCOUNT}/ai/runs",
        f"/client/v4/accounts/{ACCOUNT}/ai/run/",
        f"/client/v4/accounts//ai/run/{SST2}",
        f"/client/v4/accounts/{ACCOUNT}%2Fai%2Frun/{SST2}",
        f"/client/v4/accounts/a/b/ai/run/{SST2}",
        f"//client/v4/accounts/{ACCOUNT}/ai/run/{SST2}",
        f"/x{RUN}",
        "/livez/",
    ],
)
async def test_an_unknown_route_is_7000_for_any_caller(client: Client, path: str) -> None:
    check_front(await client.send("POST", path, GOOD), 400, NO_ROUTE)
    check_front(await client.send("POST", path, GOOD, {}), 400, NO_ROUTE)


async def test_without_the_playground_its_paths_are_unknown(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, playground=False)) as running:
        for path in PLAYGROUND:
            check_front(await running.client.get(path), 400, NO_ROUTE)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_wrong_method_is_7001_before_authentication(client: Client, method: str) -> None:
    answer = await client.send(method, RUN, headers={})
    message = f"{method} not supported for requested URI."
    expected = (
        f'{{"result":null,"success":false,"errors":[{{"code":7001,"message":"{message}"}}],"messages":[]}}'
    )
    check_front(answer, 405, expected.encode())
    assert answer.header("allow") == "POST"


@pytest.mark.parametrize("headers", [{}, {"X-Auth-Email": "me@example.com"}, {"X-Auth-Key": ANY_TOKEN}])
async def test_missing_credentials_are_9106(client: Client, headers: dict[str, str]) -> None:
    check_front(
        await client.send("POST", RUN, GOOD, headers),
        400,
        b'{"result":null,"success":false,"errors":[{"code":9106,"message":'
        b'"Missing X-Auth-Key, X-Auth-Email or Authorization headers"}],"messages":[]}',
    )


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN} x", "Bearer tök", "Bearer a,b"],
)
async def test_a_malformed_authorization_header_is_6003(client: Client, value: str) -> None:
    check_front(
        await client.send("POST", RUN, GOOD, {"Authorization": value}),
        400,
        b'{"result":null,"success":false,"errors":[{"code":6003,"message":"Invalid request headers",'
        b'"error_chain":[{"code":6111,"message":"Invalid format for Authorization header"}]}],"messages":[]}',
    )


@pytest.mark.parametrize(
    ("repeated", "chain"),
    [
        (("X-Auth-Email",), b'{"code":6102,"message":"Invalid format for X-Auth-Email header"}'),
        (("X-Auth-Key",), b'{"code":6103,"message":"Invalid format for X-Auth-Key header"}'),
        (
            ("X-Auth-Email", "X-Auth-Key"),
            b'{"code":6102,"message":"Invalid format for X-Auth-Email header"},'
            b'{"code":6103,"message":"Invalid format for X-Auth-Key header"}',
        ),
    ],
)
async def test_a_repeated_header_of_the_legacy_pair_is_6003(
    client: Client, repeated: tuple[str, ...], chain: bytes
) -> None:
    pair = {"X-Auth-Email": "me@example.com", "X-Auth-Key": ANY_TOKEN}
    again = {name.lower(): pair[name] for name in repeated}
    check_front(
        await client.send("POST", RUN, GOOD, pair | again),
        400,
        b'{"result":null,"success":false,"errors":[{"code":6003,"message":"Invalid request headers",'
        b'"error_chain":[' + chain + b']}],"messages":[]}',
    )


AUTHENTICATION_ERROR = (
    b'{"result":null,"success":false,'
    b'"errors":[{"code":10000,"message":"Authentication error"}],"messages":[]}'
)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer nobody-issued-this"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"X-Auth-Email": "me@example.com", "X-Auth-Key": "wrong"},
    ],
)
async def test_an_unknown_token_is_401(client: Client, headers: dict[str, str]) -> None:
    check_front(await client.send("POST", RUN, GOOD, headers), 401, AUTHENTICATION_ERROR)


async def test_a_token_of_another_account_is_403(client: Client) -> None:
    path = f"/client/v4/accounts/another/ai/run/{SST2}"
    check_front(await client.send("POST", path, GOOD), 403, AUTHENTICATION_ERROR)
    any_account = await client.send("POST", path, GOOD, {"Authorization": f"Bearer {ANY_TOKEN}"})
    assert any_account.status == 200


async def test_authentication_comes_before_the_model_and_the_body(client: Client) -> None:
    path = f"/client/v4/accounts/{ACCOUNT}/ai/run/@cf/no/such"
    answer = await client.send("POST", path, b"{", {"Authorization": "Bearer wrong"})
    check_front(answer, 401, AUTHENTICATION_ERROR)


@pytest.mark.parametrize(
    ("slug", "name"),
    [
        ("@cf/no/such", "@cf/no/such"),
        ("@cf%2Fno%2Fsuch", "@cf/no/such"),
        (SST2 + "/", SST2 + "/"),
        (SST2.upper(), SST2.upper()),
        ("@cf%252Fhuggingface%252Fdistilbert-sst-2-int8", "@cf%2Fhuggingface%2Fdistilbert-sst-2-int8"),
        ("x" * 5000, "x" * 200),
    ],
)
async def test_an_unknown_model_is_5007(client: Client, slug: str, name: str) -> None:
    answer = await client.run(b"not even JSON", path=f"/client/v4/accounts/{ACCOUNT}/ai/run/{slug}")
    check_ai(answer, 400, 5007, f"No such model {name} or task")


REQUIRED = "Error: required properties at '/' are 'text'"
MISMATCH = "Error: Type mismatch of '/text', 'string' not in "


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{}", REQUIRED),
        (b'{"inputs":"x"}', REQUIRED),
        (b'{"Text":"x"}', REQUIRED),
        (b"[]", REQUIRED),
        (b'["text"]', REQUIRED),
        (b'"text"', REQUIRED),
        (b"null", REQUIRED),
        (b"5", REQUIRED),
        (b"true", REQUIRED),
        (b'{"text":""}', "Error: Length of '/text' must be >= 1 not met"),
        (b'{"text":123}', MISMATCH + "'number','integer'"),
        (b'{"text":1.0}', MISMATCH + "'number','integer'"),
        (b'{"text":-0}', MISMATCH + "'number','integer'"),
        (b'{"text":1e300}', MISMATCH + "'number','integer'"),
        (b'{"text":' + b"7" * 300 + b"}", MISMATCH + "'number','integer'"),
        (b'{"text":1.5}', MISMATCH + "'number'"),
        (b'{"text":1e999}', MISMATCH + "'number'"),
        (b'{"text":' + b"7" * 400 + b"}", MISMATCH + "'number'"),
        (b'{"text":' + b"7" * 9000 + b"}", MISMATCH + "'number'"),
        (b'{"text":null}', MISMATCH + "'null'"),
        (b'{"text":true}', MISMATCH + "'boolean'"),
        (b'{"text":["a","b"]}', MISMATCH + "'array','binary'"),
        (b'{"text":[]}', MISMATCH + "'array','binary'"),
        (b'{"text":[1,"a",2.5]}', MISMATCH + "'array','binary'"),
        (b'{"text":[null]}', MISMATCH + "'array','binary'"),
        (b'{"text":[true]}', MISMATCH + "'array'"),
        (b'{"text":["a",{}]}', MISMATCH + "'array'"),
        (b'{"text":[["a"]]}', MISMATCH + "'array'"),
        (b'{"text":{}}', MISMATCH + "'object'"),
        (b'{"text":"first","text":null}', MISMATCH + "'null'"),
    ],
)
async def test_bad_input_is_5006_in_the_validators_words(
    client: Client, triton: FakeTriton, body: bytes, text: str
) -> None:
    check_ai(await client.run(body), 400, 5006, f"Bad input: {text}")
    assert triton.texts == []


async def test_an_unknown_result_shape_is_5006(client: Client) -> None:
    for query in ("?result_shape=list", "?result_shape=", "?result_shape=items&result_shape=x"):
        check_ai(
            await client.run(GOOD, query=query),
            400,
            5006,
            "Bad input: Error: query parameter 'result_shape' must be 'array' or 'items'",
        )


MISSING = "Request is missing headers or body: the body is "


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not valid JSON"),
        (b"text=hello", "not valid JSON"),
        (b'{"text":"a"} x', "not valid JSON"),
        (b'{"text":"a",}', "not valid JSON"),
        (b"{'text':'a'}", "not valid JSON"),
        (b'{"text":"a","n":NaN}', "not valid JSON"),
        (b'{"text":"a","n":-Infinity}', "not valid JSON"),
        (b'{"text":"line\nbreak"}', "not valid JSON"),
        (b'{"text":"\xff"}', "not valid JSON"),
        (b'{"text":"\xed\xa0\x80"}', "not valid JSON"),
        ('{"text":"a"}'.encode("utf-16"), "not valid JSON"),
        (b"\x1f\x8b\x08\x00", "not valid gzip"),
        (b'{"text":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
    ],
)
async def test_a_body_that_is_not_json_is_3003(client: Client, body: bytes, text: str) -> None:
    check_ai(await client.run(body), 400, 3003, MISSING + text)


async def test_a_body_above_the_limit_is_3006_and_one_of_just_the_limit_is_not(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, max_body_bytes=1000)) as running:
        client = running.client
        just = b'{"text":"' + b"a" * 989 + b'"}'
        assert len(just) == 1000
        assert (await client.run(just)).status == 200
        for body in (just + b" ", b"x" * 100_000):
            check_ai(await client.run(body), 413, 3006, "Request is too large: the limit is 1000 bytes")
        chunked = dict(client.headers) | {"Transfer-Encoding": "chunked"}
        answer = await client.send("POST", RUN, b"3e9\r\n" + just + b" \r\n0\r\n\r\n", chunked)
        check_ai(answer, 413, 3006, "Request is too large: the limit is 1000 bytes")


async def test_the_size_is_refused_before_the_body_is_sent(client: Client) -> None:
    headers = dict(client.headers) | {"Content-Length": str(10**12)}
    answer = await client.send("POST", RUN, b"", headers)
    check_ai(answer, 413, 3006, "Request is too large: the limit is 1048576 bytes")


async def test_a_body_of_the_default_limit_reaches_triton(client: Client, triton: FakeTriton) -> None:
    text = "a" * (1024 * 1024 - 11)
    assert (await client.run({"text": text, "x": 1})).status == 413
    assert (await client.run(b'{"text":"' + text.encode() + b'"}')).status == 200
    assert triton.texts == [text.encode()]


async def test_a_head_request_gets_the_405_without_a_body(client: Client) -> None:
    answer = await client.send("HEAD", RUN)
    assert (answer.status, answer.body) == (405, b"")
