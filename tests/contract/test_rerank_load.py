"""Reranking under load: places, the rate, and pairs of many requests in shared calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.contract.test_errors import check_ai
from tests.contract.test_rerank import rerank
from tests.support.fake_triton import FakeTriton, hold, read_pairs, reranker
from tests.support.harness import (
    running_gateway,
    settings_for,
    until,
    until_in_flight,
)

FULL = "Capacity temporarily exceeded, please try again."


def request(query: str, texts: Sequence[str]) -> dict[str, Any]:
    return {"query": query, "contexts": [{"text": text} for text in texts]}


def numbered(count: int) -> list[str]:
    return [f"context {number}" for number in range(count)]


async def test_a_request_takes_a_place_for_each_pair_and_gives_all_back(triton: FakeTriton) -> None:
    triton.ensembles.append(reranker())
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    settings = settings_for(triton, max_requests_in_flight=10, max_batch_texts=10)
    async with running_gateway(settings) as running:
        client = running.client
        asking = asyncio.create_task(rerank(client, request("a", numbered(6))))
        await until_in_flight(client, 6)
        assert await client.metric("tritonflare_requests_in_flight") == 6
        check_ai(await rerank(client, request("b", numbered(5))), 429, 3040, FULL)
        fitting = asyncio.create_task(rerank(client, request("c", numbered(4))))
        await until_in_flight(client, 10)
        release.set()
        assert [(await each).status for each in (asking, fitting)] == [200, 200]
        assert await client.metric("tritonflare_requests_in_flight") == 0
        # More than may ever be in flight are refused for what they are.
        words = "Bad input: Error: Length of '/contexts' must be <= 10"
        check_ai(await rerank(client, request("d", numbered(11))), 400, 5006, words)


async def test_a_client_that_goes_away_gives_all_places_back(triton: FakeTriton) -> None:
    triton.ensembles.append(reranker())
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with running_gateway(settings_for(triton)) as running:
        client = running.client
        asking = asyncio.create_task(rerank(client, request("a", numbered(20))))
        await until_in_flight(client, 20)
        asking.cancel()

        async def idle() -> bool:
            return await client.metric("tritonflare_requests_in_flight") == 0

        await until(idle)
        assert triton.cancelled == 0
        release.set()


async def test_a_request_counts_once_in_the_rate(triton: FakeTriton) -> None:
    triton.ensembles.append(reranker())
    async with running_gateway(settings_for(triton, requests_per_minute=2, max_batch_texts=2)) as running:
        client = running.client
        assert [(await rerank(client, request("a", numbered(9)))).status for _ in range(2)] == [200, 200]
        answer = await rerank(client, request("a", ["b"]))
        assert (answer.status, answer.error["code"]) == (429, 3021)


async def test_pairs_of_different_requests_share_calls_and_keep_the_scores_they_have_alone(
    triton: FakeTriton,
) -> None:
    triton.ensembles.append(reranker())
    queries = [f"query {word}" for word in ("one", "two", "three", "four", "five", "six")]
    # Contexts that all queries share, and some of their own.
    shared = ["one two", "three four", "query five", "nothing", "six one query"]
    requests = [request(query, [*shared, f"{query} alone"]) for query in queries]
    release = asyncio.Event()
    async with running_gateway(settings_for(triton)) as running:
        client = running.client
        alone = [(await rerank(client, each)).body for each in requests]
        triton.requests.clear()
        triton.infer_fault = hold(release)
        asking = [asyncio.create_task(rerank(client, each)) for each in requests]
        await until_in_flight(client, 6 * len(requests))
        release.set()
        together = [(await each).body for each in asking]
    assert together == alone
    calls = [
        read_pairs(each) for each in triton.requests if [tensor.name for tensor in each.inputs].count("QUERY")
    ]
    mixed = [call for call in calls if len({query for query, _ in call}) > 1]
    assert mixed, "no call had pairs of more than one request"
    assert sum(map(len, calls)) >= 6 * len(requests)
    # The very same context stands beside different queries in one call.
    assert any(len({query for query, text in call if text == b"nothing"}) > 1 for call in mixed)
