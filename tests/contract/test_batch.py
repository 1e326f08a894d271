"""Several texts in one request."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import grpc
import pytest

from tests.contract.test_errors import check_ai
from tests.support.fake_triton import SST2, FakeTriton, hold, read_texts
from tests.support.harness import ACCOUNT, RUN, UUID, Client, running_gateway, settings_for, until

HALVES = [{"label": "NEGATIVE", "score": 0.5}, {"label": "POSITIVE", "score": 0.5}]


def batch(*texts: object) -> dict[str, object]:
    return {"requests": [{"text": text} for text in texts]}


async def _fail_calls_with(text: bytes, request: Any, context: Any) -> None:
    if text in read_texts(request):
        await context.abort(grpc.StatusCode.INTERNAL, "poison")


async def test_a_batch_has_the_bytes_of_a_finished_one(client: Client, triton: FakeTriton) -> None:
    triton.answer_logits(0.0, 0.0)
    answer = await client.run(
        {"requests": [{"text": "one", "external_reference": "first"}, {"text": "one two"}]}
    )
    entries = '[{"label":"NEGATIVE","score":0.5},{"label":"POSITIVE","score":0.5}]'
    assert answer.status == 200
    assert answer.body.decode() == (
        '{"result":{"responses":['
        f'{{"id":0,"result":{entries},"success":true,"external_reference":"first"}},'
        f'{{"id":1,"result":{entries},"success":true,"external_reference":null}}],'
        '"usage":{"prompt_tokens":7,"completion_tokens":0,"total_tokens":7}},'
        '"success":true,"errors":[],"messages":[]}'
    )
    assert answer.header("cf-ai-neurons") == "0.02"  # 7 x 0.002394
    assert UUID.fullmatch(answer.header("cf-ai-req-id") or "")


async def test_each_bad_item_has_its_own_error_beside_good_neighbours(
    client: Client, triton: FakeTriton
) -> None:
    triton.answer_logits(0.0, 0.0)
    answer = await client.run(
        {
            "requests": [
                {"text": "good"},
                {"text": "", "external_reference": "empty"},
                {"text": ["a"]},
                "not an object",
                {"text": "good", "external_reference": 5},
                {"text": "good", "external_reference": None},
            ]
        }
    )
    assert answer.status == 200
    assert answer.json["success"] is True
    request_id = answer.header("cf-ai-req-id")
    responses = answer.json["result"]["responses"]
    assert [entry["id"] for entry in responses] == [0, 1, 2, 3, 4, 5]
    assert [entry["success"] for entry in responses] == [True, False, False, False, False, True]
    assert responses[1] == {
        "id": 1,
        "result": {},
        "success": False,
        "errors": [
            {
                "message": "AiError: Bad input: Error: Length of '/text' must be >= 1 not met "
                f"({request_id})",
                "code": 5006,
            }
        ],
        "external_reference": "empty",
    }
    messages = [entry["errors"][0]["message"] for entry in responses if not entry["success"]]
    assert "'string' not in 'array','binary'" in messages[1]
    assert "required properties at '/' are 'text'" in messages[2]
    assert "Type mismatch of '/external_reference', 'string' not in 'number','integer'" in messages[3]
    assert triton.texts == [b"good", b"good"]
    assert answer.json["result"]["usage"]["prompt_tokens"] == 6


async def test_a_batch_of_bad_items_alone_is_answered_item_by_item(
    client: Client, triton: FakeTriton
) -> None:
    answer = await client.run({"requests": [{}, {"text": 5}]})
    assert answer.status == 200
    assert [entry["success"] for entry in answer.json["result"]["responses"]] == [False, False]
    assert answer.header("cf-ai-neurons") == "0.00"
    assert triton.texts == []


async def test_texts_travel_together_and_every_answer_returns_to_its_text(
    client: Client, triton: FakeTriton
) -> None:
    def by_length(response: Any) -> Any:
        texts = read_texts(triton.requests[-1])
        response.raw_output_contents[1] = b"".join(struct.pack("<2f", 0.0, len(text)) for text in texts)
        return response

    triton.reshape = by_length
    texts = ["x" * (1 + 37 * place % 50) for place in range(50)]
    before = len(triton.requests)
    responses = (await client.run(batch(*texts))).json["result"]["responses"]
    scores = [entry["result"][1]["score"] for entry in responses]
    ranks = sorted(range(50), key=lambda place: scores[place])
    # Equal scores where the sigmoid is 1.0 in doubles keep their order among themselves.
    assert [len(texts[place]) for place in ranks[:30]] == list(range(1, 31))
    calls = [len(read_texts(r)) for r in triton.requests[before:] if read_texts(r) != [b"This is a canary."]]
    # The fake takes 8 at once; two slots that become free in one moment share what is left.
    assert (sum(calls), max(calls)) == (50, 8)
    assert len(calls) <= 10


@pytest.mark.parametrize("max_batch_size", [0, 1])
async def test_a_model_without_batching_gets_one_text_a_call(triton: FakeTriton, max_batch_size: int) -> None:
    triton.ensembles[0].max_batch_size = max_batch_size
    async with running_gateway(settings_for(triton)) as running:
        answer = await running.client.run(batch("a", "b", "c"))
        assert [entry["success"] for entry in answer.json["result"]["responses"]] == [True] * 3
        assert sorted(triton.texts) == [b"a", b"b", b"c"]


async def test_one_text_that_fails_the_model_never_fails_its_neighbours(
    client: Client, triton: FakeTriton
) -> None:
    async def poison(request: Any, context: Any) -> None:
        await _fail_calls_with(b"poison", request, context)

    triton.infer_fault = poison
    answer = await client.run(batch("a", "b", "poison", "c", "d"))
    responses = answer.json["result"]["responses"]
    assert [entry["success"] for entry in responses] == [True, True, False, True, True]
    assert responses[2]["errors"][0]["code"] == 8007
    assert "poison" not in json.dumps(responses)


async def test_one_text_with_nonsense_for_scores_never_fails_its_neighbours(triton: FakeTriton) -> None:
    def second_is_nan(response: Any) -> Any:
        if response.outputs[0].shape[0] == 3:
            response.raw_output_contents[1] = struct.pack("<6f", 0, 0, float("nan"), 0, 0, 0)
        return response

    triton.reshape = second_is_nan
    async with running_gateway(settings_for(triton, call_slots=1)) as running:
        responses = (await running.client.run(batch("a", "b", "c"))).json["result"]["responses"]
    assert [entry["success"] for entry in responses] == [True, False, True]
    assert responses[1]["errors"][0]["code"] == 8007


@pytest.mark.parametrize(
    ("status", "http", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, 3050),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, 3040),
        (grpc.StatusCode.INTERNAL, 500, 8007),
    ],
)
async def test_a_batch_of_which_nothing_was_answered_fails_as_one_text_would(
    client: Client, triton: FakeTriton, status: grpc.StatusCode, http: int, code: int
) -> None:
    async def fault(request: Any, context: Any) -> None:
        if read_texts(request) != [b"This is a canary."]:
            await context.abort(status, "no")

    triton.infer_fault = fault
    answer = await client.run({"requests": [{"text": "a"}, {"text": "b"}, {}]})
    assert (answer.status, answer.error["code"]) == (http, code)
    assert answer.json["result"] == {}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"requests":[]}', "Length of '/requests' must be >= 1 not met"),
        (b'{"requests":{}}', "Type mismatch of '/requests', 'array' not in 'object'"),
        (b'{"requests":"x"}', "Type mismatch of '/requests', 'array' not in 'string'"),
        (b'{"requests":null,"text":"a"}', "Type mismatch of '/requests', 'array' not in 'null'"),
        (b'{"requests":[1,2,3,4]}', "Length of '/requests' must be <= 3"),
        (b'{"request_id":"x"}', "'/request_id' is not known, a batch is answered at once"),
    ],
)
async def test_what_is_no_batch_is_5006(triton: FakeTriton, body: bytes, text: str) -> None:
    async with running_gateway(settings_for(triton, max_batch_texts=3)) as running:
        check_ai(await running.client.run(body), 400, 5006, f"Bad input: Error: {text}")


async def test_a_list_as_text_is_not_a_batch(client: Client) -> None:
    check_ai(
        await client.run({"text": ["a", "b"]}),
        400,
        5006,
        "Bad input: Error: Type mismatch of '/text', 'string' not in 'array','binary'",
    )


async def test_queue_request_is_answered_at_once_as_a_finished_batch(
    client: Client, triton: FakeTriton
) -> None:
    triton.answer_logits(0.0, 0.0)
    sdk_for_python = {"text": "ignored", **batch("a", "b")}
    for payload, texts in ((batch("a", "b"), 2), (sdk_for_python, 2), ({"text": "a"}, 1)):
        answer = await client.run(payload, query="?queueRequest=true")
        responses = answer.json["result"]["responses"]
        assert [entry["result"] for entry in responses] == [HALVES] * texts
    in_the_body = await client.run({"text": "a", "options": {"queueRequest": True}})
    assert in_the_body.json["result"]["responses"][0]["result"] == HALVES
    check_ai(
        await client.run({}, query="?queueRequest=true"),
        400,
        5006,
        "Bad input: Error: required properties at '/' are 'requests'",
    )
    assert b"ignored" not in triton.texts


async def test_the_result_shape_and_the_truncation_mark_hold_for_batches(client: Client) -> None:
    long = "word " * 600
    answer = await client.run(batch(long, "short"), query="?result_shape=items")
    labels = [e["result"]["items"][0]["label"] for e in answer.json["result"]["responses"]]
    assert labels == ["POSITIVE", "POSITIVE"]
    assert answer.header("x-truncated") == "true"
    assert answer.header("x-truncated-texts") == "0"
    assert answer.json["result"]["usage"]["total_tokens"] == 512 + 3
    several = await client.run(batch("short", long, "", long, long))
    assert several.header("x-truncated-texts") == "1,3-4"
    assert (await client.run(batch("short", "too"))).header("x-truncated-texts") is None


async def test_admission_counts_every_text_of_a_batch(triton: FakeTriton) -> None:
    release = asyncio.Event()
    async with running_gateway(settings_for(triton, max_requests_in_flight=5, max_batch_texts=5)) as running:
        client = running.client
        triton.infer_fault = hold(release)
        waiting = asyncio.create_task(client.run(batch("a", "b", "c", "d")))

        async def four_wait() -> bool:
            return await client.metric("tritonflare_requests_in_flight") == 4

        await until(four_wait)
        check_ai(
            await client.run(batch("e", "f")), 429, 3040, "Capacity temporarily exceeded, please try again."
        )
        one = asyncio.create_task(client.run({"text": "g"}))

        async def five_wait() -> bool:
            return await client.metric("tritonflare_requests_in_flight") == 5

        await until(five_wait)
        release.set()
        assert [(await waiting).status, (await one).status] == [200, 200]
        assert await client.metric("tritonflare_requests_in_flight") == 0


async def test_metrics_count_the_tokens_of_every_text(client: Client) -> None:
    await client.run(batch("one", "one two"))
    assert await client.metric(f'tritonflare_tokens_total{{model="{SST2}"}}') == 7


async def test_of_a_batch_whose_caller_hangs_up_no_more_is_sent(client: Client, triton: FakeTriton) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    texts = [f"text {number}" for number in range(100)]
    _, writer = await client.open("POST", RUN, json.dumps(batch(*texts)).encode())

    async def running() -> bool:
        return len(triton.texts) > 0

    await until(running)
    writer.close()

    async def dropped() -> bool:
        return await client.metric("tritonflare_requests_in_flight") == 0

    await until(dropped)
    sent = len(triton.texts)
    assert sent < len(texts)
    release.set()
    assert (await client.run({"text": "another"})).status == 200
    assert (triton.cancelled, len(triton.texts)) == (0, sent + 1)


async def test_a_lone_surrogate_in_a_reference_is_sent_back_as_the_replacement_character(
    client: Client,
) -> None:
    answer = await client.run(rb'{"requests":[{"text":"a","external_reference":"x\ud800"}]}')
    assert answer.json["result"]["responses"][0]["external_reference"] == "x\ufffd"


async def test_batches_work_with_the_model_in_the_body_too(client: Client) -> None:
    path = f"/client/v4/accounts/{ACCOUNT}/ai/run"
    queued = {"model": SST2, "input": {"text": "a"}, "options": {"queueRequest": True}}
    for body in ({"model": SST2, "input": batch("a")}, queued):
        assert len((await client.run(body, path=path)).json["result"]["responses"]) == 1
