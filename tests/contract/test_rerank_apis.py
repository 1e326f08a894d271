"""The request forms of TEI, Cohere and Jina before a fake reranker."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.fake_triton import RERANKER, SST2, FakeTriton, hold, read_pairs, reranker
from tests.support.harness import (
    ACCOUNT,
    ANY_TOKEN,
    UUID,
    Answer,
    Client,
    access_lines,
    running_gateway,
    settings_for,
    until,
)

QUERY = "red wine of the south"
TEXTS = ["white wine", "red wine of the south", "beer", "a red of the north"]
SCORES = {1: 1 / (1 + math.exp(-4)), 3: 1 / (1 + math.exp(-2)), 0: 0.5, 2: 1 / (1 + math.e)}
"""By index, best first: the fake counts the words that query and text share, minus one."""
TEI = {"query": QUERY, "texts": TEXTS}
COHERE = {"query": QUERY, "documents": TEXTS}
NAMES = (RERANKER, RERANKER.replace("/", "--"), "reranker")


@pytest.fixture
async def client(triton: FakeTriton) -> AsyncIterator[Client]:
    triton.ensembles.append(reranker())
    async with running_gateway(settings_for(triton)) as running:
        yield running.client


async def ask(client: Client, path: str, body: object, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.send("POST", path, json.dumps(body).encode(), client.headers | named)


def scores(answer: Answer) -> dict[int, float]:
    """Score by index in the order of the answer, whatever its form."""
    if answer.status != 200:
        raise AssertionError(answer)
    found = answer.json["results"] if isinstance(answer.json, dict) else answer.json
    return {rank["index"]: rank.get("score", rank.get("relevance_score")) for rank in found}


@pytest.mark.parametrize(
    ("path", "body"), [("/rerank", TEI), ("/rerank", COHERE), ("/v1/rerank", COHERE), ("/v2/rerank", COHERE)]
)
async def test_every_form_gets_the_scores_of_the_workers_ai_api_best_first(
    client: Client, path: str, body: dict[str, Any]
) -> None:
    contexts = [{"text": text} for text in TEXTS]
    run = await client.run(
        {"query": QUERY, "contexts": contexts},
        path=f"/client/v4/accounts/{ACCOUNT}/ai/run/{RERANKER}",
    )
    expected = {entry["id"]: entry["score"] for entry in run.json["result"]["response"]}
    assert expected == pytest.approx(SCORES)
    assert list(expected) == list(SCORES)
    answer = await ask(client, path, body)
    assert list(scores(answer).items()) == list(expected.items())
    assert UUID.fullmatch(answer.header("cf-ai-req-id") or "")
    assert (answer.header("server-timing") or "").startswith("queue;dur=")
    assert answer.header("cf-ai-neurons") == run.header("cf-ai-neurons")


async def test_raw_scores_are_the_logits(client: Client) -> None:
    assert scores(await ask(client, "/rerank", TEI | {"raw_scores": True})) == {1: 4, 3: 2, 0: 0, 2: -1}
    pair = await ask(client, "/predict", {"inputs": [QUERY, TEXTS[1]], "raw_scores": True})
    assert pair.json == [{"score": 4.0, "label": "LABEL_0"}]


@pytest.mark.parametrize("count", [1, 3, 4, 99])
async def test_top_n_cuts_the_ranking_and_may_be_too_large(client: Client, count: int) -> None:
    ranked = scores(await ask(client, "/v1/rerank", COHERE | {"top_n": count}))
    assert list(ranked) == list(SCORES)[:count]
    assert ranked == pytest.approx({index: SCORES[index] for index in ranked})


async def test_texts_come_back_if_asked_for(client: Client) -> None:
    ranks = (await ask(client, "/rerank", TEI | {"return_text": True})).json
    assert [rank["text"] for rank in ranks] == [TEXTS[index] for index in SCORES]
    results = (await ask(client, "/v1/rerank", COHERE | {"return_documents": True})).json["results"]
    assert [result["document"] for result in results] == [{"text": TEXTS[index]} for index in SCORES]


@pytest.mark.parametrize(
    ("path", "asked", "repeats"),
    [
        ("/rerank", {}, True),
        ("/rerank", {"return_documents": None}, True),
        ("/rerank", {"return_documents": False}, False),
        ("/v1/rerank", {}, False),
        ("/v2/rerank", {}, False),
        ("/v2/rerank", {"return_documents": True}, True),
    ],
)
async def test_documents_come_back_as_the_server_does_that_has_the_path(
    client: Client, path: str, asked: dict[str, object], repeats: bool
) -> None:
    results = (await ask(client, path, COHERE | asked)).json["results"]
    texts = [{"text": TEXTS[index]} for index in SCORES]
    assert [result.get("document") for result in results] == (texts if repeats else [None] * len(texts))


async def test_an_empty_text_is_ranked_like_any_other(client: Client) -> None:
    """A chunker's empty chunk must not cost the whole ranking."""
    for path, body in (
        ("/rerank", TEI | {"texts": ["", "red"]}),
        ("/v1/rerank", COHERE | {"documents": ["", "red"]}),
    ):
        assert list(scores(await ask(client, path, body))) == [1, 0]


@pytest.mark.parametrize("name", NAMES)
async def test_a_model_answers_to_each_of_its_names(client: Client, triton: FakeTriton, name: str) -> None:
    triton.ensembles.append(reranker("other", public_name="@cf/acme/other"))

    async def both() -> bool:
        return (await ask(client, "/rerank", TEI)).status == 424

    await until(both)
    assert scores(await ask(client, "/rerank", TEI | {"model": name})) == pytest.approx(SCORES)
    answer = await ask(client, "/v1/rerank", COHERE | {"model": name})
    assert answer.json["model"] == name
    assert scores(answer) == pytest.approx(SCORES)


async def test_a_batch_of_predict_is_answered_in_order_and_all_or_none(
    client: Client, triton: FakeTriton
) -> None:
    pairs = [[QUERY, text] for text in TEXTS]
    answer = await ask(client, "/predict", {"inputs": pairs})
    assert [entry["score"] for (entry,) in answer.json] == pytest.approx(
        [SCORES[place] for place in range(4)]
    )
    texts = await ask(client, "/predict", {"inputs": [["good"], ["bad"]]})
    assert [[entry["label"] for entry in entries] for entries in texts.json] == [["POSITIVE", "NEGATIVE"]] * 2
    # The second pair has no room for its text, so the request has no answer.
    failed = await ask(client, "/predict", {"inputs": [[QUERY, "a"], ["long " * 600, "a"]]})
    assert (failed.status, failed.json["error_type"]) == (422, "Validation")
    assert "the first text of a pair of `inputs` leaves no room for the second" in failed.json["error"]


async def test_a_text_that_is_too_long_is_cut_unless_the_request_refuses_that(client: Client) -> None:
    long = TEI | {"texts": ["wine " * 600, "red wine"]}
    for truncate in ({}, {"truncate": None}, {"truncate": True}):
        answer = await ask(client, "/rerank", long | truncate)
        assert (answer.status, answer.header("x-truncated")) == (200, "true")
    refused = await ask(client, "/rerank", long | {"truncate": False})
    assert (refused.status, refused.json["error_type"]) == (422, "Validation")
    text = {"inputs": "good " * 600}
    assert (await ask(client, "/predict", text)).header("x-truncated") == "true"
    assert (await ask(client, "/predict", text | {"truncate": False})).status == 422
    assert (await ask(client, "/rerank", TEI | {"truncate": False})).status == 200


async def test_bodies_may_be_gzip(client: Client) -> None:
    for path, body in (("/rerank", TEI), ("/v1/rerank", COHERE), ("/predict", {"inputs": [QUERY, "a"]})):
        sent = gzip.compress(json.dumps(body).encode())
        answer = await client.send("POST", path, sent, client.headers | {"Content-Encoding": "gzip"})
        assert answer.status == 200


async def test_the_account_is_the_token_s_or_a_header_s(client: Client) -> None:
    any_account = {"Authorization": f"Bearer {ANY_TOKEN}"}
    assert (await ask(client, "/rerank", TEI, **any_account)).status == 200
    assert (await ask(client, "/rerank", TEI, cf_account_id=ACCOUNT)).status == 200
    refused = await ask(client, "/v1/rerank", COHERE, cf_account_id="another")
    assert (refused.status, refused.json["detail"]) == (403, "The token is not valid for this account")


async def test_requests_of_every_form_share_the_rate_of_their_account(triton: FakeTriton) -> None:
    triton.ensembles.append(reranker())
    settings = settings_for(triton, requests_per_minute=3, max_batch_texts=3)
    async with running_gateway(settings) as running:
        for path, body in (("/rerank", TEI), ("/v1/rerank", COHERE), ("/predict", {"inputs": "good"})):
            assert (await ask(running.client, path, body)).status == 200
        assert (await ask(running.client, "/rerank", TEI)).status == 429
        assert (await running.client.run({"text": "good"})).status == 429


async def test_requests_are_counted_and_logged_under_their_route_and_model(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    await ask(client, "/rerank", TEI)
    await ask(client, "/v1/rerank", COHERE | {"model": "no-such"})
    await ask(client, "/predict", {"inputs": "good"})
    lines = await access_lines(capsys)
    assert [line.split(" ")[:2] for line in lines] == [
        ["POST", path] for path in ("/rerank", "/v1/rerank", "/predict")
    ]
    for model, status in ((RERANKER, 200), ("unknown", 404), (SST2, 200)):
        samples = (await client.get("/metrics")).body.decode().splitlines()
        assert any(
            line.startswith("tritonflare_requests_total{")
            and f'model="{model}"' in line
            and str(status) in line
            for line in samples
        ), model


async def test_a_repeated_ranking_is_cached_whatever_form_it_came_in(triton: FakeTriton) -> None:
    triton.ensembles.append(reranker())
    async with running_gateway(settings_for(triton, cache_bytes=1_000_000)) as running:
        first = await ask(running.client, "/rerank", TEI)
        sent = len(triton.texts)
        second = await ask(running.client, "/v1/rerank", COHERE)
        assert (first.header("cf-aig-cache-status"), second.header("cf-aig-cache-status")) == ("MISS", "HIT")
        assert scores(second) == scores(first)
        assert len(triton.texts) == sent


async def test_info_tells_the_kind_of_the_model_and_its_limits(client: Client) -> None:
    info = (await client.get("/info")).json
    assert (info["model_id"], list(info["model_type"])) == (RERANKER, ["reranker"])
    assert (info["max_input_length"], info["max_client_batch_size"], info["auto_truncate"]) == (
        512,
        100,
        True,
    )
    classifier = (await client.get(f"/info?model={SST2}")).json
    assert classifier["model_type"]["classifier"]["id2label"] == {"0": "NEGATIVE", "1": "POSITIVE"}
    assert (await client.send("GET", "/info", headers={})).status == 401
    assert (await client.get("/info?model=no-such")).status == 404


async def test_health_follows_readiness_and_asks_for_no_token(client: Client, triton: FakeTriton) -> None:
    healthy = await client.send("GET", "/health", headers={})
    assert (healthy.status, healthy.body) == (200, b"")
    await triton.disappear()

    async def unhealthy() -> bool:
        return (await client.send("GET", "/health", headers={})).status == 503

    await until(unhealthy)
    refused = await client.send("GET", "/health", headers={})
    assert refused.json["error_type"] == "Unhealthy"


async def test_concurrent_requests_of_all_forms_share_calls_and_get_the_scores_they_get_alone(
    client: Client, triton: FakeTriton
) -> None:
    words = ["red", "wine", "of", "the", "south", "and", "north", "with", "beer", "or", "white"]
    bodies: list[tuple[str, dict[str, Any]]] = []
    for number in range(60):
        query = " ".join(words[number % 5 : number % 5 + 3])
        texts = [" ".join(words[place : place + 1 + number % 4]) for place in range(1 + number % 7)]
        forms = [
            ("/rerank", "texts"),
            ("/v1/rerank", "documents"),
            ("/v2/rerank", "documents"),
            ("/rerank", "documents"),
        ]
        path, key = forms[number % 4]
        bodies.append((path, {"query": query, key: texts}))
    alone = [scores(await ask(client, path, body)) for path, body in bodies]
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    before = len(triton.requests)
    together = [asyncio.create_task(ask(client, path, body)) for path, body in bodies]
    await asyncio.sleep(0.2)
    release.set()
    # In their order, too: equal scores keep the order of the texts.
    assert [list(scores(answer).items()) for answer in await asyncio.gather(*together)] == [
        list(ranked.items()) for ranked in alone
    ]
    calls = [read_pairs(request) for request in triton.requests[before:] if len(request.inputs) == 2]
    queries = [{query for query, _ in call} for call in calls]
    assert any(len(found) > 1 for found in queries)
    assert await client.metric("tritonflare_requests_in_flight") == 0
