"""The Open Inference Protocol over HTTP: what is refused, and how."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import grpc
import pytest

from tests.support.fake_triton import FakeTriton, fail, hold
from tests.support.harness import ACCOUNT, TOKEN, Client, running_gateway, settings_for
from tests.support.inference_protocol import (
    MODEL,
    binary_request,
    check_error,
    infer,
    outputs,
    raw_texts,
    request,
    text_input,
)

MIB = 1024 * 1024
MISSING = "The header 'authorization: Bearer <token>' is missing"
MALFORMED = "The header 'authorization' is not of the form 'Bearer <token>'"


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({}, 401, MISSING),
        ({"Authorization": "Basic x"}, 401, MALFORMED),
        ({"Authorization": "Bearer"}, 401, MALFORMED),
        ({"Authorization": "Bearer unknown"}, 401, "The token is unknown or has expired"),
        (
            {"Authorization": f"Bearer {TOKEN}", "cf-account-id": "another"},
            403,
            "The token is not valid for this account",
        ),
    ],
)
async def test_credentials_are_checked_everywhere_but_for_health(
    client: Client, headers: dict[str, str], status: int, message: str
) -> None:
    paths = ("/v2", MODEL, f"{MODEL}/ready", f"{MODEL}/config", "/v2/nowhere", f"{MODEL}/stats")
    answers = [await client.send("GET", path, headers=headers) for path in paths]
    answers += [await client.send("POST", f"{MODEL}/infer", b"{", headers)]
    answers += [await client.send("POST", "/v2/repository/index", b"", headers)]
    for answer in answers:
        check_error(answer, status, message)
        assert answer.header("www-authenticate") == ("Bearer" if status == 401 else None)
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert (await client.send("GET", path, headers=headers)).status == 200


async def test_the_account_of_the_token_may_be_named(client: Client) -> None:
    assert (await infer(client, request("a"), cf_account_id=ACCOUNT)).status == 200


@pytest.mark.parametrize("ending", ["", "/ready", "/config", "/infer"])
async def test_unknown_models_and_versions_are_not_found(client: Client, ending: str) -> None:
    method, body = ("POST", json.dumps(request("a")).encode()) if ending == "/infer" else ("GET", None)
    for name in ("nothing", "@cf/no/such", "sst2/", "..", "n" * 1000):
        answer = await client.send(method, f"/v2/models/{name}{ending}", body)
        check_error(answer, 404, f"No such model {name[:200]} or task")
    answer = await client.send(method, f"{MODEL}/versions/2{ending}", body)
    check_error(answer, 404, f"No version 2 of model {MODEL[11:]}; version 1 is served")


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("GET", "/v2/systemsharedmemory/status", "Shared memory"),
        ("GET", "/v2/systemsharedmemory/region/a/status", "Shared memory"),
        ("POST", "/v2/systemsharedmemory/region/a/register", "Shared memory"),
        ("POST", "/v2/systemsharedmemory/unregister", "Shared memory"),
        ("POST", "/v2/cudasharedmemory/region/a/register", "Shared memory"),
        ("POST", "/v2/repository/models/sst2/load", "loaded or unloaded"),
        ("POST", "/v2/repository/models/sst2/unload", "loaded or unloaded"),
        ("GET", "/v2/models/stats", "Statistics"),
        ("GET", f"{MODEL}/stats", "Statistics"),
        ("GET", f"{MODEL}/versions/1/stats", "Statistics"),
        ("GET", "/v2/trace/setting", "Traces"),
        ("POST", f"{MODEL}/trace/setting", "Traces"),
        ("GET", "/v2/logging", "logs"),
        ("POST", "/v2/logging", "logs"),
    ],
)
async def test_operations_of_triton_that_do_not_exist_here_are_named(
    client: Client, method: str, path: str, named: str
) -> None:
    answer = await client.send(method, path, b"{}" if method == "POST" else None)
    assert (answer.status, list(answer.json)) == (404, ["error"])
    assert named in answer.json["error"]
    assert answer.header("x-should-retry") is None


_NO_ROUTES = (
    *("/v2/nowhere", "/v2/models", "/v2/models/", "/v2/health", "/v2//models", "/v2/%2F"),
    # Only the whole path of an operation of Triton is that operation.
    *("/v2/foo/statsX", "/v2/foo/stats", "/v2/loggings", "/v2/foo/logging", "/v2/trace/settings"),
    *("/v2/systemsharedmemory", "/v2/systemsharedmemoryX/status", "/v2/repository/models/sst2"),
)


async def test_other_paths_and_methods_are_refused_in_the_form_of_the_protocol(client: Client) -> None:
    for path in _NO_ROUTES:
        check_error(await client.get(path), 404, "No route for that URI")
    for method, path, allowed in (
        ("GET", f"{MODEL}/infer", "POST"),
        ("POST", MODEL, "GET, HEAD"),
        ("GET", "/v2/repository/index", "POST"),
        ("DELETE", "/v2/nowhere", "GET, HEAD, POST"),
    ):
        answer = await client.send(method, path, b"" if method == "POST" else None)
        check_error(answer, 405, f"{method} not supported for requested URI.")
        assert answer.header("allow") == allowed
    # Not under /v2.
    assert (await client.get("/v2x")).json["errors"][0]["code"] == 7000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (request(1), "element 0 of input 'TEXT' is not a string"),
        (request("a", True), "element 1 of input 'TEXT' is not a string"),
        (request("a", None), "element 1 of input 'TEXT' is not a string"),
        (request("a", 1.5), "element 1 of input 'TEXT' is not a string"),
        (request("a", {"b": 1}), "element 1 of input 'TEXT' is not a string"),
        (request("a", ""), "element 1 of input 'TEXT' is empty"),
        (request([["a"]]), "element 0 of input 'TEXT' is not a string"),
        ({"inputs": []}, "the only input must be 'TEXT', but the request has none"),
        (
            {"inputs": [text_input("a", name="\u2028")]},
            "the only input must be 'TEXT', but the request has '\u2028'",
        ),
        ({"inputs": [text_input("a", shape=[2])]}, "input 'TEXT' has 1 elements, but its shape [2] needs 2"),
        (
            {"inputs": [text_input("a", shape=[2**62, 2**62])]},
            f"input 'TEXT' must have the shape [n] or [n, 1], not [{2**62}, {2**62}]",
        ),
        (
            {"inputs": [text_input("a", shape=[2**63 - 1])]},
            f"input 'TEXT' has {2**63 - 1} texts; a request may have 100",
        ),
        (
            {"inputs": [text_input("a", datatype="FP32")]},
            "input 'TEXT' must have the datatype BYTES, not 'FP32'",
        ),
        ({}, "Object missing required field `inputs`"),
        (request("a", id=5), "Expected `str | null`, got `int` - at `$.id`"),
        (request("a", outputs=[{"name": "x"}]), None),
        (request("a", outputs=[{"name": "label", "parameters": {"classification": 1}}]), None),
        (request("a", outputs=[{"name": "logits", "parameters": {"classification": -1}}]), None),
        (request("a", parameters={"sequence_id": 7}), None),
        (request("a", outputs=[{"name": "label", "parameters": {"shared_memory_region": "r"}}]), None),
    ],
)
async def test_wrong_input_is_400_with_a_reason(client: Client, body: object, message: str | None) -> None:
    answer = await infer(client, body)
    if message is None:
        assert (answer.status, list(answer.json)) == (400, ["error"])
        assert len(answer.json["error"]) > 30
    else:
        check_error(answer, 400, f"Bad input: {message}")


TEXTS = b'{"inputs":[{"name":"TEXT","shape":[1],"datatype":"BYTES","data":%s}]}'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b"text=good", "the body is not valid JSON"),
        (TEXTS % b"[NaN]", "the body is not valid JSON"),
        (TEXTS % b"[Infinity]", "the body is not valid JSON"),
        (TEXTS % (b"[" * 10_000 + b"]" * 10_000), "the body is nested too deep"),
        (TEXTS % (b'["a"],"b":' + b"[" * 10_000), "the body is nested too deep"),
        (b"\x1f\x8b not gzip", "the body is not valid gzip"),
        (gzip.compress(b"a") * 2, "the body is not valid gzip"),
    ],
    ids=range(8),
)
async def test_what_is_not_json_is_400(client: Client, body: bytes, message: str) -> None:
    answer = await infer(client, body)
    check_error(answer, 400, f"Request is missing headers or body: {message}")


async def test_odd_json_is_read_as_on_the_run_route(client: Client, triton: FakeTriton) -> None:
    for body in (
        b"\xef\xbb\xbf" + TEXTS % b'["mark"]',
        TEXTS % b'["half \\ud83d"]',
        TEXTS % b'["first"],"data":["twice"]',
        TEXTS % b'["escaped \\u0000"]',
    ):
        assert outputs(await infer(client, body))
    assert triton.texts == [b"mark", "half \ufffd".encode(), b"twice", b"escaped \x00"]


@pytest.mark.parametrize("length", ["-1", "0", "99999", "1e3", "9" * 4000, "", "0x10"])
async def test_a_header_length_that_does_not_fit_the_body_is_400(client: Client, length: str) -> None:
    body, _ = binary_request(b"a")
    answer = await infer(client, body, Inference_Header_Content_Length=length)
    assert answer.status == 400
    assert answer.json["error"].startswith("Bad input: Inference-Header-Content-Length")
    assert len(answer.body) < 300


@pytest.mark.parametrize("size", [0, 4, 6, 10**6, -1, 2**63, "5", None])
async def test_a_binary_size_that_does_not_fit_the_body_is_400(client: Client, size: object) -> None:
    tensor: dict[str, Any] = text_input("a", parameters={"binary_data_size": size})
    del tensor["data"]
    header = json.dumps({"inputs": [tensor]}).encode()
    answer = await infer(client, header + raw_texts(b"a"), Inference_Header_Content_Length=str(len(header)))
    assert answer.status == 400
    assert answer.json["error"].startswith("Bad input: ")


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
async def test_a_bomb_is_too_large(client: Client, compress: Any) -> None:
    coding = {"Content_Encoding": "deflate"} if compress is zlib.compress else {}
    answer = await infer(client, compress(bytes(100 * MIB)), **coding)
    check_error(answer, 413, f"Request is too large: the limit is {MIB} bytes")
    check_error(await infer(client, b" " * (MIB + 1)), 413, f"Request is too large: the limit is {MIB} bytes")


async def test_damaged_deflate_is_400(client: Client) -> None:
    whole = zlib.compress(json.dumps(request("a")).encode())
    for body in (whole[:-1], whole + b"x", whole[:2] + b"\xff" + whole[3:], whole[:2]):
        answer = await infer(client, body, Content_Encoding="deflate")
        check_error(answer, 400, "Request is missing headers or body: the body is not valid deflate")
    # It is not announced, so it is no deflate.
    check_error(
        await infer(client, whole), 400, "Request is missing headers or body: the body is not valid JSON"
    )


async def test_a_long_id_comes_back_and_a_longer_one_is_too_large(client: Client) -> None:
    answer = await infer(client, request("a", id="i" * 1_000_000))
    assert answer.json["id"] == "i" * 1_000_000
    assert (await infer(client, request("a", id="i" * (MIB + 1)))).status == 413


@pytest.mark.parametrize("field", ["name", "datatype"])
async def test_long_names_are_shown_in_part(client: Client, field: str) -> None:
    answer = await infer(client, {"inputs": [text_input("a", **{field: "n" * 1_000_000})]})
    assert (answer.status, len(answer.body) < 400) == (400, True)


@pytest.mark.parametrize(
    ("code", "status", "retried"),
    [(grpc.StatusCode.INTERNAL, 500, False), (grpc.StatusCode.UNAVAILABLE, 503, True)],
)
async def test_failures_of_triton_have_no_words_of_triton(
    client: Client, triton: FakeTriton, code: grpc.StatusCode, status: int, retried: bool
) -> None:
    triton.infer_fault = fail(code)
    for body in (request("a"), request("a", "b")):
        answer = await infer(client, body)
        assert (answer.status, list(answer.json)) == (status, ["error"])
        assert b"Traceback" not in answer.body
        assert (answer.header("retry-after") is not None) is retried


async def test_a_request_without_an_answer_times_out(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, request_timeout_s=0.3)) as running:
        release = asyncio.Event()
        triton.infer_fault = hold(release)
        check_error(await infer(running.client, request("a")), 408, "Request timeout")
        check_error(await infer(running.client, request("a", "b")), 408, "Request timeout")
        release.set()
        assert triton.cancelled == 0


async def test_without_any_model_nothing_is_known(triton: FakeTriton) -> None:
    triton.ensembles.clear()
    async with running_gateway(settings_for(triton), wait_ready=False) as running:
        client = running.client
        message = "The model server is not available, please try again."
        for path in (MODEL, f"{MODEL}/ready", f"{MODEL}/config"):
            check_error(await client.get(path), 503, message)
        check_error(await infer(client, request("a")), 503, message)
        answer = await client.send("POST", "/v2/repository/index", b"")
        check_error(answer, 503, message)
        assert (await client.get("/v2/health/ready")).json == {"ready": False}
        assert (await client.get("/v2")).status == 200
