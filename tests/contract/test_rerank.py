"""Reranking in Cloudflare's form: what recorded requests get, and the words of each refusal."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.test_errors import check_ai
from tests.support.fake_triton import RERANKER, SST2, FakeTriton, relevance, reranker
from tests.support.harness import ACCOUNT, Answer, Client, Running, running_gateway, settings_for, until

AI = f"/client/v4/accounts/{ACCOUNT}/ai"
RUN = f"{AI}/run/{RERANKER}"
CONTEXTS = ["cats chase mice", "a cat may look at a king", "nothing of the kind", "cats sleep"]
REQUEST = {"query": "cats chase what", "contexts": [{"text": text} for text in CONTEXTS]}
BAD = "Bad input: Error: "
BINDING = {"cf-consn-model-id": RERANKER, "cf-consn-sdk-version": "2.0.0"}


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def expected(query: str, contexts: list[str]) -> list[tuple[int, float]]:
    """Index and score of each context, best first; equal ones in their order."""
    scores = [sigmoid(relevance(query.encode(), text.encode())) for text in contexts]
    return sorted(enumerate(scores), key=lambda entry: -entry[1])


def tokens(query: str, contexts: list[str]) -> int:
    return sum(len(query.split()) + 3 + len(text.split()) for text in contexts)


def ranking(result: Any) -> list[tuple[int, float]]:
    assert list(result) == ["response", "usage"]
    assert all(list(entry) == ["id", "score"] for entry in result["response"])
    return [(entry["id"], entry["score"]) for entry in result["response"]]


def close(found: list[tuple[int, float]], wanted: list[tuple[int, float]]) -> bool:
    return [place for place, _ in found] == [place for place, _ in wanted] and all(
        math.isclose(mine, yours, abs_tol=1e-6) for (_, mine), (_, yours) in zip(found, wanted, strict=True)
    )


@pytest.fixture
async def gateway(triton: FakeTriton) -> AsyncIterator[Running]:
    triton.ensembles.append(reranker())
    async with running_gateway(settings_for(triton)) as running:
        yield running


async def rerank(client: Client, payload: object = REQUEST, path: str = RUN, **headers: str) -> Answer:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.send("POST", path, body, client.headers | named)


async def test_the_answer_has_the_recorded_form(client: Client) -> None:
    answer = await rerank(client)
    assert answer.status == 200
    assert list(answer.json) == ["result", "success", "errors", "messages"]
    result = answer.json["result"]
    assert close(ranking(result), expected("cats chase what", CONTEXTS))
    read = tokens("cats chase what", CONTEXTS)
    neurons = read * 282.6288 / 1_000_000
    assert result["usage"] == {
        "prompt_tokens": read,
        "completion_tokens": 0,
        "total_tokens": read,
        "prompt_tokens_details": {"cached_tokens": 0},
        "neurons": pytest.approx(neurons),
    }
    assert list(result["usage"]) == [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "neurons",
    ]
    assert answer.header("cf-ai-neurons") == f"{neurons:.2f}"
    assert answer.header("x-truncated") is None
    assert answer.header("cf-aig-cache-status") is None


def test_neurons_are_those_of_the_recorded_answer() -> None:
    from gateway.domain.tasks import PRICES, Task

    # The recording: 34 tokens, 0.009609379270889618 neurons.
    assert PRICES[Task.RERANK].of(34) == pytest.approx(0.009609379270889618, rel=1e-6)


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (2.0, 2), (4, 4), (99, 4), (1e300, 4)], ids=str)
async def test_top_k_cuts_and_asks_for_no_more_than_there_are(
    client: Client, top_k: float, count: int
) -> None:
    answer = await rerank(client, REQUEST | {"top_k": top_k})
    wanted = expected("cats chase what", CONTEXTS)[:count]
    assert close(ranking(answer.json["result"]), wanted)
    # All pairs are read, and paid for.
    assert answer.json["result"]["usage"]["total_tokens"] == tokens("cats chase what", CONTEXTS)


async def test_contexts_of_equal_scores_keep_their_order(client: Client) -> None:
    contexts = [{"text": text} for text in ("x", "good", "y", "good", "z")]
    answer = await rerank(client, {"query": "good", "contexts": contexts})
    assert [place for place, _ in ranking(answer.json["result"])] == [1, 3, 0, 2, 4]


async def test_no_contexts_give_an_empty_response(client: Client, triton: FakeTriton) -> None:
    answer = await rerank(client, {"query": "good", "contexts": []})
    assert (answer.status, answer.json["result"]["response"]) == (200, [])
    assert answer.json["result"]["usage"]["total_tokens"] == 0
    assert triton.texts == []


SCHEMA_WORDS: list[tuple[object, str]] = [
    ({}, "required properties at '/' are 'query,contexts'"),
    ([], "required properties at '/' are 'query,contexts'"),
    ({"query": "a"}, "required properties at '/' are 'query,contexts'"),
    ({"contexts": [{"text": "a"}]}, "required properties at '/' are 'query,contexts'"),
    ({"Query": "a", "contexts": []}, "required properties at '/' are 'query,contexts'"),
    ({"query": "a", "documents": ["b"], "top_n": 1}, "required properties at '/' are 'query,contexts'"),
    ({"text": "a"}, "required properties at '/' are 'query,contexts'"),
    ({"query": "", "contexts": []}, "Length of '/query' must be >= 1 not met"),
    ({"query": 5, "contexts": []}, "Type mismatch of '/query', 'string' not in 'number','integer'"),
    ({"query": None, "contexts": []}, "Type mismatch of '/query', 'string' not in 'null'"),
    ({"query": ["a"], "contexts": []}, "Type mismatch of '/query', 'string' not in 'array','binary'"),
    ({"query": "a", "contexts": "b"}, "Type mismatch of '/contexts', 'array' not in 'string'"),
    # The validator misses what has no text in it, whatever its type.
    ({"query": "a", "contexts": {"text": "b"}}, "required properties at '/' are 'query,contexts'"),
    ({"query": "a", "contexts": None}, "required properties at '/' are 'query,contexts'"),
    ({"query": "a", "contexts": 5}, "required properties at '/' are 'query,contexts'"),
    ({"query": "a", "contexts": [{}, {"title": "b"}]}, "required properties at '/' are 'query,contexts'"),
    ({"query": "a", "contexts": [["b"]]}, "required properties at '/' are 'query,contexts'"),
    ({"contexts": ["b"]}, "required properties at '/' are 'query,contexts'"),
    ({"query": "a", "contexts": [5, {"text": ""}]}, "Length of '/contexts/1/text' must be >= 1 not met"),
    ({"query": "a", "contexts": [{"text": ""}]}, "Length of '/contexts/0/text' must be >= 1 not met"),
    (
        {"query": "a", "contexts": [{"text": "b"}, {"text": 1.5}]},
        "Type mismatch of '/contexts/1/text', 'string' not in 'number'",
    ),
    (REQUEST | {"top_k": 0}, "'/top_k' must be >= 1"),
    (REQUEST | {"top_k": -3}, "'/top_k' must be >= 1"),
    (REQUEST | {"top_k": "3"}, "Type mismatch of '/top_k', 'integer' not in 'string'"),
    (REQUEST | {"top_k": 2.5}, "Type mismatch of '/top_k', 'integer' not in 'number'"),
    (REQUEST | {"top_k": None}, "Type mismatch of '/top_k', 'integer' not in 'null'"),
    (REQUEST | {"top_k": True}, "Type mismatch of '/top_k', 'integer' not in 'boolean'"),
    # Properties are looked at in the schema's order, and before what is missing.
    ({"query": "", "contexts": "b", "top_k": 0}, "Length of '/query' must be >= 1 not met"),
    ({"query": "a", "contexts": "b", "top_k": 0}, "'/top_k' must be >= 1"),
    ({"top_k": 0}, "'/top_k' must be >= 1"),
]
"""Bodies that the schema refuses, and the validator's words; tests/clients asks the validator itself."""


OWN_WORDS: list[tuple[object, str]] = [
    (["b"], "Type mismatch of '/contexts/0', 'object' not in 'string'"),
    ([1, "b"], "Type mismatch of '/contexts/0', 'object' not in 'number','integer'"),
    ([None], "Type mismatch of '/contexts/0', 'object' not in 'null'"),
    ([{"text": "b"}, ["c"]], "Type mismatch of '/contexts/1', 'object' not in 'array','binary'"),
    ([{"text": "b"}, {"title": "c"}], "required properties at '/contexts/1' are 'text'"),
    ({"first": {"text": "b"}}, "Type mismatch of '/contexts', 'array' not in 'object'"),
]
"""Contexts that the validator lets pass though one has no text, and what they get here."""


@pytest.mark.parametrize(("body", "words"), SCHEMA_WORDS)
async def test_what_the_schema_refuses_gets_the_validators_words(
    client: Client, triton: FakeTriton, body: object, words: str
) -> None:
    check_ai(await rerank(client, body), 400, 5006, BAD + words)
    by_body = {"model": RERANKER, "input": body}
    check_ai(await rerank(client, by_body, f"{AI}/run"), 400, 5006, BAD + words)
    bound = await rerank(client, {"inputs": body}, "/run?version=3", **BINDING)
    assert (bound.status, bound.json["description"]) == (400, f"Error: {words}")
    assert triton.texts == []


@pytest.mark.parametrize(("contexts", "words"), OWN_WORDS)
async def test_contexts_without_a_text_that_the_schema_lets_pass_are_refused(
    client: Client, triton: FakeTriton, contexts: object, words: str
) -> None:
    check_ai(await rerank(client, {"query": "a", "contexts": contexts}), 400, 5006, BAD + words)
    assert triton.texts == []


async def test_unknown_keys_change_nothing(client: Client) -> None:
    plain = await rerank(client)
    contexts = [{"text": text, "id": text} for text in CONTEXTS]
    more = {"documents": ["x"], "top_n": 1, "truncate_inputs": True, "contexts": contexts}
    assert (await rerank(client, REQUEST | more)).body == plain.body


async def test_too_many_contexts_are_refused(triton: FakeTriton) -> None:
    triton.ensembles.append(reranker())
    async with running_gateway(settings_for(triton, max_contexts=3)) as running:
        check_ai(await rerank(running.client), 400, 5006, BAD + "Length of '/contexts' must be <= 3")
        fewer = REQUEST | {"contexts": [{"text": "a"}] * 3}
        assert (await rerank(running.client, fewer)).status == 200


async def test_what_is_cut_of_a_context_is_told_and_a_query_that_fills_the_model_is_refused(
    triton: FakeTriton,
) -> None:
    triton.ensembles.append(reranker(max_tokens=8))
    async with running_gateway(settings_for(triton)) as running:
        client = running.client
        contexts = [{"text": "one"}, {"text": "one two three four five"}]
        cut = await rerank(client, {"query": "a b", "contexts": contexts})
        assert (cut.status, cut.header("x-truncated")) == (200, "true")
        assert cut.json["result"]["usage"]["prompt_tokens"] == 6 + 8  # of the second, what was read
        long = await rerank(client, {"query": "a b c d e", "contexts": contexts})
        words = "'/query' leaves no room for a context: the model reads 8 tokens"
        check_ai(long, 400, 5006, BAD + words)
        assert await client.metric("tritonflare_requests_in_flight") == 0


async def test_if_one_pair_has_no_score_the_request_fails(client: Client, triton: FakeTriton) -> None:
    def spoil(response: Any) -> Any:
        for place, output in enumerate(response.outputs):
            if output.name == "logits" and output.shape[0] > 1:
                nan = b"\x00\x00\xc0\x7f"
                response.raw_output_contents[place] = response.raw_output_contents[place][:-4] + nan
        return response

    triton.reshape = spoil
    check_ai(await rerank(client), 500, 8007, "The model failed to answer.")
    one = {"query": "a", "contexts": [{"text": "a"}]}
    assert (await rerank(client, one)).status == 200

    async def idle() -> bool:
        return await client.metric("tritonflare_requests_in_flight") == 0

    await until(idle)


@pytest.mark.parametrize("path", [f"/v1/{ACCOUNT}/mine/workers-ai/{RERANKER}", f"{AI}/run"])
async def test_the_other_paths_answer_alike(client: Client, path: str) -> None:
    plain = await rerank(client)
    body = {"model": RERANKER, "input": REQUEST} if path.endswith("/run") else REQUEST
    assert (await rerank(client, body, path)).body == plain.body
    listed = await client.get(f"{AI}/models/search")
    assert [entry["name"] for entry in listed.json["result"]] == [RERANKER, SST2]


async def test_the_binding_gets_the_ranking_without_the_envelope(client: Client) -> None:
    import gzip

    plain = (await rerank(client)).json["result"]
    third = await rerank(client, {"inputs": REQUEST}, "/run?version=3", **BINDING)
    assert (third.status, third.json) == (200, plain)
    assert third.header("content-type") == "application/json"
    second = await rerank(client, {"inputs": REQUEST}, "/run?version=2", **BINDING)
    assert json.loads(gzip.decompress(second.body)) == plain
    tensor = await rerank(client, REQUEST, "/run", cf_consn_model_id=RERANKER)
    assert tensor.json["description"] == (
        "Error: @cloudflare/ai 1.0 knows no rerankers, use env.AI.run instead"
    )


async def test_a_batch_ranks_each_request_by_itself(client: Client) -> None:
    other = {"query": "king", "contexts": [{"text": text} for text in CONTEXTS], "top_k": 1}
    requests = [REQUEST | {"external_reference": "first"}, {"query": "a"}, other]
    answer = await rerank(client, {"requests": requests})
    first, refused, second = answer.json["result"]["responses"]
    assert first["result"] == (await rerank(client)).json["result"]
    assert first["external_reference"] == "first"
    assert refused["errors"][0]["code"] == 5006
    assert refused["errors"][0]["message"].startswith(f"AiError: {BAD}required properties at '/' are")
    assert second["result"] == (await rerank(client, other)).json["result"]
    read = tokens("cats chase what", CONTEXTS) + tokens("king", CONTEXTS)
    assert answer.json["result"]["usage"]["total_tokens"] == read


async def test_pairs_are_cached_each_by_itself(triton: FakeTriton) -> None:
    triton.ensembles.append(reranker())
    async with running_gateway(settings_for(triton, cache_bytes=1_000_000)) as running:
        client = running.client
        first, again = [await rerank(client) for _ in range(2)]
        assert [each.header("cf-aig-cache-status") for each in (first, again)] == ["MISS", "HIT"]
        assert first.body == again.body
        more = REQUEST | {"contexts": [{"text": "cats sleep"}, {"text": "new"}]}
        assert (await rerank(client, more)).header("cf-aig-cache-status") == "MISS"
        assert triton.texts.count(b"cats sleep") == 1
        other = REQUEST | {"query": "cats chase", "contexts": [{"text": "cats sleep"}]}
        assert (await rerank(client, other)).header("cf-aig-cache-status") == "MISS"
        empty = REQUEST | {"contexts": []}
        assert (await rerank(client, empty)).header("cf-aig-cache-status") is None
