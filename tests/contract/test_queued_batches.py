"""Batches that are fetched later, in a file and in Redis."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from tests.contract.test_errors import check_ai
from tests.support.fake_triton import RERANKER, SST2, FakeTriton, hold, reranker
from tests.support.harness import (
    ACCOUNT,
    ANY_TOKEN,
    RUN,
    Client,
    Running,
    running_gateway,
    settings_for,
    until,
)
from tests.support.queued_batches import ENTRIES, NO_ID, QUEUED, UNKNOWN, Configure, batch, fetch, submit


@pytest.fixture
def client(queueing: Running) -> Client:
    return queueing.client


async def test_a_batch_is_queued_running_and_finished_byte_for_byte(
    client: Client, triton: FakeTriton
) -> None:
    triton.answer_logits(0.0, 0.0)
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    payload = {"requests": [{"text": "one", "external_reference": "first"}, {"text": ""}]}
    accepted = await client.run(payload, query=QUEUED)
    request_id = accepted.json["result"]["request_id"]
    pending = f'"request_id":"{request_id}","model":"{SST2}"}},"success":true,"errors":[],"messages":[]}}'
    assert (accepted.status, accepted.body.decode()) == (200, '{"result":{"status":"queued",' + pending)
    assert accepted.header("cf-ai-req-id") != request_id
    running = '{"result":{"status":"running",' + pending

    async def is_running() -> bool:
        return (await client.run({"request_id": request_id}, query=QUEUED)).body.decode() == running

    await until(is_running)
    release.set()
    answer = await fetch(client, request_id)
    error = f"AiError: Bad input: Error: Length of '/text' must be >= 1 not met ({request_id})"
    assert answer.body.decode() == (
        '{"result":{"responses":['
        f'{{"id":0,"result":{ENTRIES},"success":true,"external_reference":"first"}},'
        f'{{"id":1,"result":{{}},"success":false,"errors":[{{"message":"{error}","code":5006}}],'
        '"external_reference":null}],'
        '"usage":{"prompt_tokens":3,"completion_tokens":0,"total_tokens":3}},'
        '"success":true,"errors":[],"messages":[]}'
    )
    assert answer.header("cf-ai-neurons") == "0.01"
    again = await client.run({"request_id": request_id})
    assert again.body == answer.body
    assert again.header("cf-ai-req-id") != answer.header("cf-ai-req-id")


@pytest.mark.parametrize(
    "payload",
    [
        {
            "requests": [
                {"text": f"{n} words " * (n % 4 + 1), "external_reference": str(n)} for n in range(90)
            ]
        },
        batch("word " * 600, "short", "", None, ["a"], "not ascii: ä€\U0001f600", "lone \ud800"),
        {"text": "ignored", **batch("a")},
        {"text": "alone"},
        batch({}, 5),
    ],
)
async def test_what_is_fetched_is_what_would_have_been_answered_at_once(
    client: Client, payload: dict[str, Any]
) -> None:
    at_once = await client.run(payload if "requests" in payload else {"requests": [payload]})
    later = await fetch(client, await submit(client, payload))
    ids = re.compile(rb"\([0-9a-f-]{36}\)")
    assert ids.sub(b"()", later.body) == ids.sub(b"()", at_once.body)
    headers = ("content-type", "cf-ai-neurons", "x-truncated", "cf-aig-cache-status")
    assert [later.header(name) for name in headers] == [at_once.header(name) for name in headers]


@pytest.mark.parametrize("header", ["cf-aig-skip-cache: true", "cf-aig-cache-ttl: 0"])
async def test_cache_options_count_when_the_batch_runs(configure: Configure, header: str) -> None:
    async with running_gateway(configure(cache_bytes=1_000_000)) as running:
        client = running.client
        name, _, value = header.partition(": ")
        body = json.dumps(batch("a", "b")).encode()
        for asked, statuses in (({}, ["MISS", "HIT"]), ({name: value}, ["MISS", "MISS"])):
            found = []
            for _ in statuses:
                accepted = await client.send("POST", RUN + QUEUED, body, client.headers | asked)
                answer = await fetch(client, accepted.json["result"]["request_id"])
                found.append(answer.header("cf-aig-cache-status"))
            assert found == statuses


async def test_the_result_shape_is_that_of_the_poll(client: Client) -> None:
    request_id = await submit(client, batch("a"))
    items = (await fetch(client, request_id, query="?result_shape=items")).json["result"]["responses"]
    assert [entry["label"] for entry in items[0]["result"]["items"]] == ["POSITIVE", "NEGATIVE"]
    array = (await fetch(client, request_id)).json["result"]["responses"]
    assert [entry["label"] for entry in array[0]["result"]] == ["NEGATIVE", "POSITIVE"]


async def test_without_queue_request_a_batch_is_answered_at_once(client: Client) -> None:
    for query in ("", "?queueRequest=false", "?queueRequest=yes"):
        assert "responses" in (await client.run(batch("a", "b"), query=query)).json["result"]


async def test_queue_request_may_stand_in_the_body_and_the_model_too(client: Client) -> None:
    in_the_options = await submit(client, batch("a") | {"options": {"queueRequest": True}}, query="")
    path = f"/client/v4/accounts/{ACCOUNT}/ai/run"
    body = {"model": SST2, "input": batch("a", "b")}
    model_in_the_body = await submit(client, body | {"options": {"queueRequest": True}}, path=path, query="")
    by_query = await submit(client, body, path=path)
    for request_id, count in ((in_the_options, 1), (model_in_the_body, 2), (by_query, 2)):
        answer = await fetch(client, request_id)
        assert len(answer.json["result"]["responses"]) == count
        poll = {"model": SST2, "input": {"request_id": request_id}}
        assert (await client.run(poll, path=path)).body == answer.body


async def test_a_poll_beside_a_text_counts_only_with_queue_request(client: Client) -> None:
    request_id = await submit(client, batch("a"))
    await fetch(client, request_id)
    from_the_python_sdk = {"text": "", "request_id": request_id}
    answer = await client.run(from_the_python_sdk, query=QUEUED)
    assert len(answer.json["result"]["responses"]) == 1
    assert (await client.run({"text": "a", "request_id": request_id})).json["result"][0][
        "label"
    ] == "NEGATIVE"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"requests":[]}', "Length of '/requests' must be >= 1 not met"),
        (b'{"requests":"x"}', "Type mismatch of '/requests', 'array' not in 'string'"),
        (b'{"requests":[1,2,3,4,5]}', "Length of '/requests' must be <= 4"),
        (b"{}", "required properties at '/' are 'requests'"),
        (b'{"request_id":7}', "Type mismatch of '/request_id', 'string' not in 'number','integer'"),
        (b'{"request_id":null}', "Type mismatch of '/request_id', 'string' not in 'null'"),
        (b'{"request_id":""}', UNKNOWN.removeprefix("Bad input: Error: ")),
        (b'{"request_id":"' + NO_ID.encode() + b'"}', UNKNOWN.removeprefix("Bad input: Error: ")),
    ],
)
async def test_wrong_batches_and_polls_are_refused_at_once(
    configure: Configure, body: bytes, text: str
) -> None:
    async with running_gateway(configure(max_queued_batch_texts=4, max_batch_texts=2)) as running:
        check_ai(await running.client.run(body, query=QUEUED), 400, 5006, f"Bad input: Error: {text}")
        assert await running.client.metric("tritonflare_batches_accepted_total") == 0


async def test_the_batch_of_another_account_is_like_an_unknown_one(client: Client) -> None:
    request_id = await submit(client, batch("a"))
    await fetch(client, request_id)
    headers = {"Authorization": f"Bearer {ANY_TOKEN}"}
    body = json.dumps({"request_id": request_id}).encode()
    other = await client.send("POST", RUN.replace(ACCOUNT, "another"), body, headers)
    check_ai(other, 400, 5006, UNKNOWN)
    assert (await client.send("POST", RUN, body, headers)).status == 200


async def test_a_result_is_kept_for_a_while(configure: Configure) -> None:
    async with running_gateway(configure(batch_keep_s=0.4)) as running:
        request_id = await submit(running.client, batch("a"))
        await fetch(running.client, request_id)
        await asyncio.sleep(0.5)
        check_ai(await running.client.run({"request_id": request_id}), 400, 5006, UNKNOWN)


async def test_any_gateway_answers_a_poll(configure: Configure) -> None:
    async with running_gateway(configure()) as first, running_gateway(configure()) as second:
        request_id = await submit(first.client, batch("a", "b"))
        answers = [await fetch(each.client, request_id) for each in (second, first)]
        assert answers[0].body == answers[1].body


async def test_rankings_are_fetched_as_they_are_answered_at_once(
    configure: Configure, triton: FakeTriton
) -> None:
    triton.ensembles.append(reranker())
    async with running_gateway(configure()) as running:
        path = RUN.replace(SST2, RERANKER)
        requests = [
            {"query": "a b", "contexts": [{"text": "a"}, {"text": "a b"}, {"text": "c"}], "top_k": 2},
            {"query": "a", "contexts": [], "external_reference": "none"},
            {"query": "", "contexts": []},
            {"query": "a", "contexts": [{"text": f"a {n}"} for n in range(90)]},
        ]
        at_once = await running.client.run({"requests": requests}, path=path)
        request_id = await submit(running.client, {"requests": requests}, path=path)
        later = await fetch(running.client, request_id)
        ids = re.compile(rb"\([0-9a-f-]{36}\)")
        assert at_once.status == 200
        assert ids.sub(b"()", later.body) == ids.sub(b"()", at_once.body)
        assert later.header("cf-ai-neurons") == at_once.header("cf-ai-neurons")


async def test_an_account_has_so_many_batches_and_hears_when_there_is_room(
    configure: Configure, triton: FakeTriton
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with running_gateway(configure(max_queued_batches=2)) as running:
        client = running.client
        requests = [await submit(client, batch("a")) for _ in range(2)]
        refused = await client.run(batch("a"), query=QUEUED)
        check_ai(refused, 429, 3040, "Too many batches are queued, please try again later.")
        assert refused.header("retry-after") == "10"
        headers = {"Authorization": f"Bearer {ANY_TOKEN}"}
        # Accounts that no token names share one number, or each new name would have its own.
        others = [
            await client.send(
                "POST", RUN.replace(ACCOUNT, name) + QUEUED, json.dumps(batch("a")).encode(), headers
            )
            for name in ("first", "second", "third")
        ]
        assert [answer.status for answer in others] == [200, 200, 429]
        release.set()
        for request_id in requests:
            await fetch(client, request_id)
        await submit(client, batch("a"))


async def test_the_texts_of_a_batch_count_when_it_is_accepted(configure: Configure) -> None:
    settings = configure(requests_per_minute=6, max_batch_texts=2)
    async with running_gateway(settings) as running:
        client = running.client
        too_many = await client.run(batch(*"abcdefg"), query=QUEUED)
        check_ai(too_many, 400, 5006, "Bad input: Error: Length of '/requests' must be <= 6")
        request_id = await submit(client, batch(*"abcde"))
        assert (await client.run(batch("f", "g"), query=QUEUED)).error["code"] == 3021
        assert (await client.run({"text": "f"})).status == 200
        assert (await client.run({"text": "g"})).error["code"] == 3021
        assert (await fetch(client, request_id)).status == 200


async def test_a_batch_that_finds_no_room_does_not_count_against_the_rate(configure: Configure) -> None:
    settings = configure(
        requests_per_minute=4, max_batch_texts=2, batch_store_bytes=1000, max_queued_body_bytes=1000
    )
    async with running_gateway(settings) as running:
        assert (await running.client.run(batch("x" * 900), query=QUEUED)).error["code"] == 3040
        assert [(await running.client.run({"text": "a"})).status for _ in range(5)] == [200] * 4 + [429]


async def test_a_batch_needs_room_for_the_scores_of_all_labels(configure: Configure) -> None:
    texts = batch(*["a"] * 50)
    for room, accepted in ((12_000, False), (18_000, True)):
        settings = configure(batch_store_bytes=room, max_queued_body_bytes=10_000)
        async with running_gateway(settings) as running:
            answer = await running.client.run(texts, query=QUEUED)
            assert answer.status == (200 if accepted else 429)


async def test_a_queued_batch_may_be_larger_than_other_bodies(configure: Configure) -> None:
    settings = configure(max_body_bytes=2000, max_queued_body_bytes=20_000)
    body, too_large = batch("x" * 10_000), batch("x" * 20_000)
    async with running_gateway(settings) as running:
        client = running.client
        await fetch(client, await submit(client, body))
        for payload, query, limit in (
            (body, "", 2000),
            ({"text": "x" * 3000}, "", 2000),
            (too_large, QUEUED, 20_000),
            ({"request_id": NO_ID, "x": "x" * 20_000}, QUEUED, 20_000),
            (body | {"options": {"queueRequest": True}}, "", 2000),
        ):
            refused = await client.run(payload, query=query)
            check_ai(refused, 413, 3006, f"Request is too large: the limit is {limit} bytes")
        native = client.headers | {"cf-consn-model-id": SST2, "cf-consn-sdk-version": "2.0.0"}
        for inputs, queued, status in (
            (body, True, 200),
            (body, False, 413),
            ({"text": "x" * 3000}, False, 413),
        ):
            sent = json.dumps({"inputs": inputs, "options": {"queueRequest": queued}}).encode()
            assert (await client.send("POST", "/run?version=3", sent, native)).status == status


async def test_through_the_binding_it_is_the_same_without_the_envelope(
    client: Client, triton: FakeTriton
) -> None:
    triton.answer_logits(0.0, 0.0)
    native = client.headers | {"cf-consn-model-id": SST2, "cf-consn-sdk-version": "2.0.0"}

    async def run(inputs: object, **options: object) -> Any:
        body = json.dumps({"inputs": inputs, "options": options}).encode()
        answer = await client.send("POST", "/run?version=3", body, native)
        return answer

    accepted = await run(batch("a", ""), queueRequest=True)
    request_id = accepted.json["request_id"]
    assert accepted.body.decode() == f'{{"status":"queued","request_id":"{request_id}","model":"{SST2}"}}'
    assert accepted.header("content-type") == "application/json"

    async def has_result() -> bool:
        return "responses" in (await run({"request_id": request_id})).json

    await until(has_result)
    answer = await run({"request_id": request_id})
    assert answer.json["responses"][0]["result"] == json.loads(ENTRIES)
    assert f"({request_id})" in answer.json["responses"][1]["errors"][0]["message"]
    assert (await fetch(client, request_id)).json["result"] == answer.json
    unknown = await run({"request_id": NO_ID})
    assert (unknown.status, unknown.json["internalCode"]) == (400, 5006)
    assert unknown.json["description"] == UNKNOWN.removeprefix("Bad input: ")
    assert (await run({"request_id": request_id}, queueRequest=True)).json == answer.json


async def test_without_a_store_everything_is_answered_at_once(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton)) as running:
        assert "responses" in (await running.client.run(batch("a"), query=QUEUED)).json["result"]
        poll = await running.client.run({"request_id": NO_ID}, query=QUEUED)
        text = "Bad input: Error: '/request_id' is not known, a batch is answered at once"
        check_ai(poll, 400, 5006, text)
        assert b"tritonflare_batches" not in (await running.client.get("/metrics")).body
