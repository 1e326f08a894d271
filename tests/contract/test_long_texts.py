"""Long texts in windows from outside: scores, headers, neurons, limits, and who may ask for them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.fake_triton import SST2, FakeTriton, hold, read_texts, reranker
from tests.support.harness import (
    ACCOUNT,
    RUN,
    Answer,
    Client,
    Running,
    running_gateway,
    settings_for,
    until,
    until_in_flight,
)
from tests.support.queued_batches import Configure, batch, fetch, submit

LIMIT, SPECIAL, OVERLAP, MOST = 12, 2, 4, 5
OWN = LIMIT - SPECIAL
WINDOW = "?long=window"
RNG = random.Random(7)
WORDS = ("good", "bad", "dull", "so", "so")
LONG = " ".join(RNG.choices(WORDS, k=30))
LONGER = " ".join(RNG.choices(WORDS, k=200))
BINDING = {"cf-consn-model-id": SST2, "cf-consn-sdk-version": "2.0.0"}
NO_WINDOWS = "Error: 'long' must be 'cut' for this model: it was exported without windows, export it again"


def logits_of(words: list[bytes]) -> tuple[float, float]:
    return words.count(b"bad") - 0.25 * words.count(b"so"), words.count(b"good") - 1.0


def windows_of(text: str, most: int = MOST) -> list[list[bytes]]:
    """The words of each window, as ``transformers`` cuts tokens, at most ``most``."""
    words, start = text.encode().split(), 0
    found: list[list[bytes]] = []
    while not found or start + OVERLAP < len(words):
        found.append(words[start : start + OWN])
        start += OWN - OVERLAP
    return found[:most]


def expected(text: str, most: int = MOST) -> tuple[list[float], int]:
    """Probabilities, and tokens read."""
    windows = windows_of(text, most)
    weights = np.exp([logits_of(words) for words in windows])
    mean = np.average(
        weights / weights.sum(axis=1, keepdims=True), axis=0, weights=[len(words) for words in windows]
    )
    return mean.tolist(), sum(len(words) + SPECIAL for words in windows)


def windowed(triton: FakeTriton) -> FakeTriton:
    triton.ensembles[0] = replace(
        triton.ensembles[0],
        max_tokens=LIMIT,
        overrides={"tritonflare.special_tokens": str(SPECIAL)},
        logits_of=logits_of,
    )
    return triton


def options(**changes: Any) -> dict[str, Any]:
    return {"window_overlap": OVERLAP, "max_windows": MOST} | changes


@pytest.fixture
async def gateway(triton: FakeTriton) -> AsyncIterator[Running]:
    async with running_gateway(settings_for(windowed(triton), **options())) as running:
        yield running


def check(answer: Answer, text: str, most: int = MOST) -> None:
    assert answer.status == 200, answer.body
    scores, tokens = expected(text, most)
    result = answer.json["result"] if isinstance(answer.json, dict) else answer.json
    assert [entry["label"] for entry in result] == ["NEGATIVE", "POSITIVE"]
    assert [entry["score"] for entry in result] == pytest.approx(scores, abs=1e-12)
    windows = len(windows_of(text, most))
    assert answer.header("x-windows") == (str(windows) if windows > 1 else None)
    assert answer.header("x-truncated") == ("true" if windows < len(windows_of(text, 10_000)) else None)
    assert answer.header("cf-ai-neurons") == f"{tokens * 2394 / 1e6:.2f}"


@pytest.mark.parametrize("count", [1, OWN, OWN + 1, OWN + 6, OWN + 7, 30, OWN + 6 * (MOST - 1), 35, 200])
async def test_the_answer_is_the_mean_over_all_windows(client: Client, count: int) -> None:
    text = " ".join(random.Random(count).choices(WORDS, k=count))
    check(await client.run({"text": text}, query=WINDOW), text)


async def test_a_text_within_the_limit_gets_the_same_answer_from_the_same_call(
    client: Client, triton: FakeTriton
) -> None:
    text = {"text": "so good so bad so dull"}
    cut, asked = await client.run(text), await client.run(text, query=WINDOW)
    assert cut.body == asked.body
    first, second = (
        request for request in triton.requests if read_texts(request) == [b"so good so bad so dull"]
    )
    assert first.SerializeToString() == second.SerializeToString()


async def test_without_the_option_texts_are_cut(client: Client, triton: FakeTriton) -> None:
    for query in ("", "?long=cut"):
        answer = await client.run({"text": LONG}, query=query)
        check_cut(answer, LONG)
    assert triton.texts == [LONG.encode()] * 2


def check_cut(answer: Answer, text: str) -> None:
    scores, tokens = expected(text, 1)
    assert [entry["score"] for entry in answer.json["result"]] == pytest.approx(scores, abs=1e-12)
    assert (answer.header("x-windows"), answer.header("x-truncated")) == (None, "true")
    assert answer.header("cf-ai-neurons") == f"{tokens * 2394 / 1e6:.2f}"


async def test_the_setting_is_the_default_and_the_query_beats_it(triton: FakeTriton) -> None:
    settings = settings_for(windowed(triton), **options(long_texts="window"))
    async with running_gateway(settings) as running:
        check(await running.client.run({"text": LONG}), LONG)
        check_cut(await running.client.run({"text": LONG}, query="?long=cut"), LONG)


async def test_every_way_to_run_a_model_has_windows(client: Client) -> None:
    body = {"text": LONG}
    by_body = f"/client/v4/accounts/{ACCOUNT}/ai/run"
    check(await client.run({"model": SST2, "input": body}, path=by_body, query=WINDOW), LONG)
    check(await client.run({"model": SST2, "input": body, "options": {"long": "window"}}, path=by_body), LONG)
    check(await client.run(body | {"options": {"long": "window"}}), LONG)
    check_cut(await client.run(body | {"options": {"long": "cut"}}, query=WINDOW), LONG)
    gateway = f"/v1/{ACCOUNT}/mine"
    check(await client.run(body, path=f"{gateway}/workers-ai/{SST2}", query=WINDOW), LONG)
    step = {"provider": "workers-ai", "endpoint": SST2, "query": body}
    check(await client.run([step], path=gateway, query=WINDOW), LONG)
    bound = json.dumps({"inputs": body, "options": {"long": "window"}}).encode()
    check(await client.send("POST", "/run?version=3", bound, client.headers | BINDING), LONG)


@pytest.mark.parametrize("value", ["all", "", "Window", "window "])
async def test_another_value_is_refused(client: Client, triton: FakeTriton, value: str) -> None:
    answer = await client.run({"text": LONG}, query="?long=" + value.replace(" ", "%20"))
    message = "AiError: Bad input: Error: query parameter 'long' must be 'cut' or 'window'"
    assert (answer.status, answer.error["code"]) == (400, 5006)
    assert answer.error["message"].startswith(message)
    answer = await client.run({"text": LONG, "options": {"long": value}})
    assert (answer.status, answer.error["code"]) == (400, 5006)
    assert "'/options/long' must be 'cut' or 'window'" in answer.error["message"]
    assert triton.texts == []


async def test_models_without_windows_refuse_them_and_are_cut_by_default(triton: FakeTriton) -> None:
    triton.ensembles[0] = replace(triton.ensembles[0], max_tokens=LIMIT, logits_of=logits_of)
    triton.ensembles.append(reranker(max_tokens=LIMIT))
    async with running_gateway(settings_for(triton, **options(long_texts="window"))) as running:
        client = running.client
        check_cut(await client.run({"text": LONG}), LONG)
        refused = await client.run({"text": "short"}, query=WINDOW)
        assert (refused.status, refused.error["code"]) == (400, 5006)
        assert NO_WINDOWS in refused.error["message"]
        ranking = {"query": "so", "contexts": [{"text": LONG}]}
        path = f"/client/v4/accounts/{ACCOUNT}/ai/run/@cf/baai/bge-reranker-base"
        assert (await client.run(ranking, path=path)).header("x-truncated") == "true"
        refused = await client.run(ranking, path=path, query=WINDOW)
        assert (refused.status, refused.error["code"]) == (400, 5006)
        assert "Error: 'long' must be 'cut' for a reranker" in refused.error["message"]


async def test_a_batch_has_the_windows_of_all_its_texts(client: Client) -> None:
    texts = ["so good", LONG, "", LONGER, "bad"]
    answer = await client.run({"requests": [{"text": text} for text in texts]}, query=WINDOW)
    responses = answer.json["result"]["responses"]
    for response, text in zip(responses, texts, strict=True):
        assert response["success"] is bool(text)
        if text:
            found = [entry["score"] for entry in response["result"]]
            assert found == pytest.approx(expected(text)[0], abs=1e-12)
    read = [text for text in texts if text]
    tokens = sum(expected(text)[1] for text in read)
    assert answer.json["result"]["usage"]["total_tokens"] == tokens
    assert answer.header("cf-ai-neurons") == f"{tokens * 2394 / 1e6:.2f}"
    assert answer.header("x-windows") == str(len(windows_of(LONG)) + len(windows_of(LONGER)))
    assert answer.header("x-truncated") == "true"


async def test_a_queued_batch_has_windows_too(configure: Configure, triton: FakeTriton) -> None:
    windowed(triton)
    async with running_gateway(configure(**options())) as running:
        client = running.client
        body = {"requests": [{"text": LONG}, {"text": "so good"}]}
        at_once = await client.run(body, query=WINDOW)
        accepted = await client.run(body, query=WINDOW + "&queueRequest=true")
        poll = {"request_id": accepted.json["result"]["request_id"]}

        async def done() -> bool:
            return "responses" in (await client.run(poll)).json["result"]

        await until(done)
        later = await client.run(poll)
        assert later.body == at_once.body
        for header in ("x-windows", "x-truncated", "cf-ai-neurons"):
            assert later.header(header) == at_once.header(header)


async def test_a_queued_batch_may_take_longer_than_a_call(configure: Configure, triton: FakeTriton) -> None:
    windowed(triton)

    async def slow(request: Any, context: Any) -> None:
        await asyncio.sleep(0.04)

    settings = configure(**options(request_timeout_s=0.1, max_call_texts=2))
    async with running_gateway(settings) as running:
        triton.infer_fault = slow
        request_id = await submit(running.client, batch(*[LONG] * 5), query=WINDOW + "&queueRequest=true")
        result = (await fetch(running.client, request_id)).json["result"]
    assert [each["success"] for each in result["responses"]] == [True] * 5


async def test_the_cache_keeps_cut_and_windowed_answers_apart(triton: FakeTriton) -> None:
    settings = settings_for(windowed(triton), **options(cache_bytes=1_000_000))
    async with running_gateway(settings) as running:
        client = running.client
        statuses = []
        for query in ("", WINDOW, WINDOW, "", WINDOW):
            answer = await client.run({"text": LONG}, query=query)
            (check if query else check_cut)(answer, LONG)
            statuses.append(answer.header("cf-aig-cache-status"))
        assert statuses == ["MISS", "MISS", "HIT", "HIT", "HIT"]


async def test_windows_leave_places_to_others_and_no_text_is_refused_halfway(triton: FakeTriton) -> None:
    release = asyncio.Event()
    limits = options(max_requests_in_flight=8, max_batch_texts=2, call_slots=9)
    async with running_gateway(settings_for(windowed(triton), **limits)) as running:
        client = running.client
        await client.run({"text": "warm"})

        async def hold_windows(request: Any, context: Any) -> None:
            if request.parameters:
                await release.wait()

        triton.infer_fault = hold_windows
        asking = [asyncio.create_task(client.run({"text": LONGER}, query=WINDOW))]
        await until_in_flight(client, 4)  # half of the places: one for each window that is asked for
        asking += [asyncio.create_task(client.run({"text": LONGER}, query=WINDOW)) for _ in range(3)]
        await until_in_flight(client, 7)
        assert (await client.run({"text": "so good"}, query=WINDOW)).status == 200
        release.set()
        for answer in await asyncio.gather(*asking):
            check(answer, LONGER)
        assert await client.metric("tritonflare_requests_in_flight") == 0


async def test_the_number_of_places_changes_no_answer(triton: FakeTriton) -> None:
    settings = settings_for(windowed(triton), **options(max_requests_in_flight=3, max_batch_texts=2))
    async with running_gateway(settings) as running:
        check(await running.client.run({"text": LONGER}, query=WINDOW), LONGER)


async def test_a_text_that_has_begun_is_not_refused_because_others_wait(triton: FakeTriton) -> None:
    limits = options(max_queue_s=0.3, call_slots=1, max_call_texts=1)
    async with running_gateway(settings_for(windowed(triton), **limits)) as running:
        client = running.client
        release = asyncio.Event()
        triton.infer_fault = hold(release)
        texts = [f"{place} {LONGER}" for place in range(3)]
        asking = [asyncio.create_task(client.run({"text": text}, query=WINDOW)) for text in texts]
        await until_in_flight(client, 3)
        await asyncio.sleep(0.4)
        assert (await client.run({"text": LONGER}, query=WINDOW)).status == 429
        release.set()  # the windows of the first one come while the last one has waited for too long
        for text, answer in zip(texts, await asyncio.gather(*asking), strict=True):
            check(answer, text)


async def test_windows_leave_together_and_the_text_once(client: Client, triton: FakeTriton) -> None:
    await client.run({"text": LONG}, query=WINDOW)
    asked = [read_texts(request) for request in triton.requests if LONG.encode() in read_texts(request)]
    assert asked == [[LONG.encode()], [LONG.encode(), b""], [LONG.encode(), b""]]  # long texts have two slots


async def test_callers_of_one_text_share_calls_and_get_their_own_answers(
    client: Client, triton: FakeTriton
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    texts = [LONG, LONGER, "so good", LONG, " ".join(RNG.choices(WORDS, k=19)), LONGER] * 3
    asking = [asyncio.create_task(client.run({"text": text}, query=WINDOW)) for text in texts]
    await until_in_flight(client, len(texts))
    release.set()
    for text, answer in zip(texts, await asyncio.gather(*asking), strict=True):
        check(answer, text)


async def test_metrics_count_texts_and_not_windows(client: Client) -> None:
    for text in (LONG, LONGER, "so good"):
        await client.run({"text": text}, query=WINDOW)
    label = f'{{model="{SST2}"}}'
    assert await client.metric("tritonflare_text_tokens_count" + label) == 3
    assert await client.metric("tritonflare_truncated_texts_total" + label) == 1
    tokens = sum(expected(text)[1] for text in (LONG, LONGER, "so good"))
    assert await client.metric("tritonflare_tokens_total" + label) == tokens


async def test_the_error_of_a_window_is_that_of_the_text(client: Client, triton: FakeTriton) -> None:
    import grpc

    async def refuse_windows(request: Any, context: Any) -> None:
        if request.parameters:
            await context.abort(grpc.StatusCode.INTERNAL, "no")

    triton.infer_fault = refuse_windows
    answer = await client.run({"text": LONG}, query=WINDOW)
    assert (answer.status, answer.error["code"]) == (500, 8007)
    batch = await client.run({"requests": [{"text": LONG}, {"text": "so good"}]}, query=WINDOW)
    assert [each["success"] for each in batch.json["result"]["responses"]] == [False, True]
    assert (await client.run({"text": LONG}, path=RUN)).status == 200
