"""The Open Inference Protocol over HTTP: what is answered."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from tests.support.fake_triton import SST2, FakeEnsemble, FakeTriton, fail, hold, read_texts
from tests.support.harness import (
    ACCOUNT,
    ANY_TOKEN,
    RUN,
    UUID,
    Client,
    access_lines,
    running_gateway,
    settings_for,
    until,
)
from tests.support.inference_protocol import (
    MODEL,
    NAMES,
    binary_request,
    check_error,
    infer,
    outputs,
    paths_of,
    request,
    text_input,
)


@pytest.mark.parametrize("name", NAMES)
async def test_a_model_answers_to_each_of_its_names(client: Client, name: str) -> None:
    for path in paths_of(name):
        for versioned in (path, f"{path}/versions/1"):
            answer = await infer(client, request("good"), f"{versioned}/infer")
            assert (answer.json["model_name"], answer.json["model_version"]) == (name, "1")
            assert outputs(answer)["label"] == ["POSITIVE"]
            assert (await client.get(versioned)).json["name"] == name
            assert (await client.get(f"{versioned}/config")).json["name"] == name
            ready = await client.get(f"{versioned}/ready")
            assert (ready.status, ready.json) == (200, {"name": name, "ready": True})


async def test_scores_are_those_of_the_run_route_rounded_to_fp32(client: Client) -> None:
    run = (await client.run({"text": "good"})).json["result"]
    answered = outputs(await infer(client, request("good")))
    rounded = [struct.unpack("<f", struct.pack("<f", entry["score"]))[0] for entry in run]
    assert answered == {
        "logits": [-4.0, 4.5],
        "probabilities": rounded,
        "label": ["POSITIVE"],
        "token_count": [3],
    }


async def test_a_successful_answer_has_an_id_and_timing(client: Client) -> None:
    answer = await infer(client, request("good", id="my id"))
    assert answer.json["id"] == "my id"
    assert UUID.fullmatch(answer.header("cf-ai-req-id") or "")
    assert (answer.header("server-timing") or "").startswith("queue;dur=")


async def test_texts_are_answered_in_order_and_all_or_none(client: Client, triton: FakeTriton) -> None:
    answered = outputs(await infer(client, request("one", "one two", "a b c", "one")))
    assert answered["token_count"] == [3, 4, 5, 3]

    async def fault(call: Any, context: Any) -> None:
        if b"bad" in read_texts(call):
            await context.abort(grpc.StatusCode.INTERNAL, "words of Triton")

    triton.infer_fault = fault
    check_error(await infer(client, request("bad")), 500, "The model failed to answer.")
    # One text has no answer, so the request has none.
    many = request(*["long " * 50] * 3, "bad")
    check_error(await infer(client, many), 500, "The model failed to answer.")


@pytest.mark.parametrize("encode", [None, gzip.compress, zlib.compress])
@pytest.mark.parametrize("texts", [(b"good",), (b"good", "schön".encode())])
async def test_binary_data_goes_both_ways(
    client: Client, texts: tuple[bytes, ...], encode: Callable[[bytes], bytes] | None
) -> None:
    body, headers = binary_request(*texts, parameters={"binary_data_output": True})
    names: dict[object, str] = {gzip.compress: "gzip", zlib.compress: "deflate"}
    if encode is not None:
        body, headers = encode(body), headers | {"Content-Encoding": names[encode]}
    answer = await client.send("POST", f"{MODEL}/infer", body, client.headers | headers)
    assert (answer.status, answer.header("content-type")) == (200, "application/octet-stream")
    length = int(answer.header("inference-header-content-length") or "")
    described = json.loads(answer.body[:length])["outputs"]
    assert [output["parameters"]["binary_data_size"] for output in described] == [
        8 * len(texts),
        8 * len(texts),
        12 * len(texts),
        4 * len(texts),
    ]
    assert answer.body[length:][: 8 * len(texts)] == struct.pack("<2f", -4.0, 4.5) * len(texts)
    assert answer.body.endswith(struct.pack("<i", 3) * len(texts))


async def test_each_output_may_choose_its_form(client: Client) -> None:
    wanted = [
        {"name": "label", "parameters": {"binary_data": False}},
        {"name": "token_count", "parameters": {"binary_data": True}},
        {"name": "probabilities", "parameters": {"binary_data": False, "classification": 1}},
    ]
    answer = await infer(client, request("good", outputs=wanted, parameters={"binary_data_output": True}))
    length = int(answer.header("inference-header-content-length") or "")
    described = json.loads(answer.body[:length])["outputs"]
    assert [(output["name"], output.get("data")) for output in described] == [
        ("label", ["POSITIVE"]),
        ("token_count", None),
        ("probabilities", ["0.999797:1:POSITIVE"]),
    ]
    assert answer.body[length:] == struct.pack("<i", 3)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "deflate, gzip"])
async def test_inferences_are_compressed_where_the_client_asks_and_nothing_else_is(
    client: Client, encoding: str
) -> None:
    plain = (await infer(client, request("good"))).body
    answer = await infer(client, request("good"), Accept_Encoding=encoding)
    coding = "gzip" if "gzip" in encoding else "deflate"
    assert answer.header("content-encoding") == coding
    undo = gzip.decompress if coding == "gzip" else zlib.decompress
    assert undo(answer.body) == plain
    # tritonclient decompresses neither errors nor metadata.
    headers = client.headers | {"Accept-Encoding": encoding}
    for path in (MODEL, f"{MODEL}/config", "/v2", "/v2/nowhere"):
        assert (await client.send("GET", path, headers=headers)).header("content-encoding") is None
    assert (await infer(client, b"{", Accept_Encoding=encoding)).header("content-encoding") is None
    run = await client.send("POST", RUN, b'{"text":"good"}', headers)
    assert run.header("content-encoding") is None


async def test_a_header_that_a_decompressing_proxy_left_behind_does_no_harm(client: Client) -> None:
    for encoding in ("gzip", "deflate"):
        assert outputs(await infer(client, request("good"), Content_Encoding=encoding))


async def test_server_metadata_names_extensions(client: Client) -> None:
    for path in ("/v2", "/v2/"):
        answer = (await client.get(path)).json
        assert answer["name"] == "tritonflare"
        assert "binary_tensor_data" in answer["extensions"]


async def test_metadata_and_configuration_fit_each_other(client: Client) -> None:
    metadata = (await client.get(MODEL)).json
    config = (await client.get(f"{MODEL}/config")).json
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]}]
    for kind in ("input", "output"):
        assert [tensor["name"] for tensor in config[kind]] == [
            tensor["name"] for tensor in metadata[f"{kind}s"]
        ]
        assert [[-1, *tensor["dims"]] for tensor in config[kind]] == [
            tensor["shape"] for tensor in metadata[f"{kind}s"]
        ]
    assert config["max_batch_size"] == 100
    assert json.loads(metadata["parameters"]["labels"]) == ["NEGATIVE", "POSITIVE"]
    assert config["parameters"]["labels"]["string_value"] == metadata["parameters"]["labels"]


async def test_the_index_lists_public_names_and_states(client: Client, triton: FakeTriton) -> None:
    entry = {"name": SST2, "version": "1", "state": "READY", "reason": ""}
    for body in (b"", b"{}", b'{"ready":true}', gzip.compress(b'{"ready":false}')):
        answer = await client.send("POST", "/v2/repository/index", body)
        assert (answer.status, answer.json) == (200, [entry])
    check_error(
        await client.send("POST", "/v2/repository/index", b'{"ready":1}'),
        400,
        "Bad input: Expected `bool`, got `int` - at `$.ready`",
    )
    triton.infer_fault = fail(grpc.StatusCode.INTERNAL)

    async def unavailable() -> bool:
        (listed,) = (await client.send("POST", "/v2/repository/index", b"")).json
        return listed["state"] == "UNAVAILABLE" and bool(listed["reason"])

    await until(unavailable)
    assert (await client.send("POST", "/v2/repository/index", b'{"ready":true}')).json == []
    answer = await client.get(f"{MODEL}/ready")
    assert (answer.status, answer.json) == (503, {"name": SST2, "ready": False})


async def test_health_needs_no_token_and_follows_readiness(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, shutdown_delay_s=0.5)) as running:
        client = replace(running.client, headers={})
        for path, body in (("/v2/health/live", {"live": True}), ("/v2/health/ready", {"ready": True})):
            answer = await client.get(path)
            assert (answer.status, answer.json) == (200, body)
        assert (await client.send("HEAD", "/v2/health/ready")).body == b""
        running.stop.set()

        async def draining() -> bool:
            answer = await client.get("/v2/health/ready")
            return (answer.status, answer.json) == (503, {"ready": False})

        await until(draining)
        assert (await client.get("/v2/health/live")).status == 200


async def test_requests_are_counted_and_logged_like_those_of_other_routes(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    await infer(client, request("a private text", id="private"))
    await infer(client, request("a"), "/v2/models/private/infer")
    await client.send("GET", "/v2/health/live", headers={})
    lines = await access_lines(capsys)
    assert [line.partition(" ms=")[0] for line in lines] == [
        "POST /v2/models/{model}/infer status=200 code=0",
        "POST /v2/models/{model}/infer status=404 code=5007",
    ]
    assert "private" not in "".join(lines)
    counted = 'tritonflare_requests_total{{code="{}",model="{}",status="{}"}}'
    assert await client.metric(counted.format(0, SST2, 200)) == 1
    assert await client.metric(counted.format(5007, "unknown", 404)) == 1
    assert await client.metric("tritonflare_requests_in_flight") == 0


async def test_the_account_is_the_header_or_the_only_one_of_the_token(triton: FakeTriton) -> None:
    settings = settings_for(triton, requests_per_minute=2, max_batch_texts=2)
    async with running_gateway(settings) as running:
        client = running.client
        assert (await infer(client, request("a"))).status == 200
        any_token = replace(client, headers={"Authorization": f"Bearer {ANY_TOKEN}"})
        assert (await infer(any_token, request("a"), cf_account_id=ACCOUNT)).status == 200
        # The rate is the account's, whichever way a request names it and whichever route it takes.
        answer = await infer(client, request("a"))
        check_error(answer, 429, "rate limiting: inference request per min rate reached")
        assert int(answer.header("retry-after-ms") or "") > 0
        assert (await client.run({"text": "a"})).status == 429
        assert (await infer(any_token, request("a", "b"))).status == 200
        assert (await infer(any_token, request("a"))).status == 429


async def test_several_texts_share_a_call_and_take_a_place_each(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, max_requests_in_flight=3, max_batch_texts=3)) as running:
        assert (await infer(running.client, request("a", "b", "c"))).status == 200
        release = asyncio.Event()
        triton.infer_fault = hold(release)
        waiting = asyncio.create_task(infer(running.client, request("d", "e")))

        async def inferring() -> bool:
            return {b"d", b"e"} <= set(triton.texts)

        await until(inferring)
        check_error(
            await infer(running.client, request("f", "g")),
            429,
            "Capacity temporarily exceeded, please try again.",
        )
        release.set()
        assert (await waiting).status == 200


async def test_many_labels_are_returned_in_full_and_as_classes(triton: FakeTriton) -> None:
    labels = tuple(f"L{n}" for n in range(5))
    triton.ensembles.append(FakeEnsemble("many", "@cf/many", labels, logits=(1.0, 3.0, 2.0, 3.0, 0.0)))
    async with running_gateway(settings_for(triton)) as running:
        wanted = [{"name": "logits", "parameters": {"classification": 3}}, {"name": "probabilities"}]
        body = {"inputs": [text_input("a", "b")], "outputs": wanted}
        answer = await infer(running.client, body, "/v2/models/@cf/many/infer")
    classes, probabilities = answer.json["outputs"]
    assert (classes["datatype"], classes["shape"]) == ("BYTES", [2, 3])
    assert classes["data"] == ["3.000000:1:L1", "3.000000:3:L3", "2.000000:2:L2"] * 2
    assert probabilities["shape"] == [2, 5]
