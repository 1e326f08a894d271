"""Classification and reranking at once on the real tritonserver: no pair notices its neighbours."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from embedded.server import RESTRICTED_KEY, TritonServer
from tests.support.fake_triton import RERANKER
from tests.support.rerankers import CLASSIFIER, reranker_repository
from tests.support.servers import ACCOUNT, TOKEN, Program, running

pytestmark = pytest.mark.needs_triton

BOUND = 1e-4
QUERIES = ("ab", "a jig", "dab i had", "gee", "he bade a chief", "j")
CONTEXTS = 20
ROUNDS = 5
TEXTS = 60


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    repository = reranker_repository(tmp_path_factory.mktemp("neighbours"))
    with TritonServer(repository) as triton:
        settings = {
            "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
            "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={triton.secret}",
            "GATEWAY_REQUEST_TIMEOUT_S": "60",
            "GATEWAY_MAX_QUEUE_S": "50",
            # One call at a time: what arrives meanwhile has to travel together.
            "GATEWAY_CALL_SLOTS": "1",
        }
        with running("gateway", "--port", "0", "--triton-url", triton.address, **settings) as program:
            yield program


@pytest.fixture
async def client(gateway: Program) -> AsyncIterator[httpx.AsyncClient]:
    base = f"{gateway.url}/client/v4/accounts/{ACCOUNT}/ai/run/"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=90) as client:
        yield client


async def _run(client: httpx.AsyncClient, model: str, payload: object) -> Any:
    answer = await client.post(model, json=payload)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def _texts(count: int, seed: int) -> list[str]:
    """Texts of 1 to 120 letters, which are as many tokens: some are longer than the model reads."""
    draw = random.Random(seed)
    words = ("".join(draw.choices("abcdefghij", k=draw.randint(1, 9))) for _ in range(20 * count))
    return [" ".join(next(words) for _ in range(draw.choice((1, 2, 5, 14)))) for _ in range(count)]


async def test_scores_and_order_of_pairs_are_the_same_alone_and_under_mixed_load(
    client: httpx.AsyncClient,
) -> None:
    """Every context alone, then all of them in rankings that share calls with each other and with texts."""
    texts = _texts(TEXTS, seed=2)
    contexts = [list(dict.fromkeys(_texts(CONTEXTS, seed=10 + place))) for place in range(len(QUERIES))]
    alone = [
        [await _score(client, query, text) for text in mine]
        for query, mine in zip(QUERIES, contexts, strict=True)
    ]
    labels = {text: await _run(client, CLASSIFIER, {"text": text}) for text in texts}
    scores = [score for mine in alone for score in mine]
    assert max(scores) - min(scores) > 0.1, "a constant would never change its order"

    async def rank(place: int, order: list[int]) -> None:
        given = [{"text": contexts[place][at]} for at in order]
        answer = await _run(client, RERANKER, {"query": QUERIES[place], "contexts": given})
        found = [(order[entry["id"]], entry["score"]) for entry in answer["response"]]
        assert sorted(at for at, _ in found) == list(range(len(order)))
        for at, score in found:
            assert score == pytest.approx(alone[place][at], abs=BOUND)
        _assert_order(found, alone[place])

    async def classify(text: str) -> None:
        answer = await _run(client, CLASSIFIER, {"text": text})
        assert [entry["label"] for entry in answer] == [entry["label"] for entry in labels[text]]
        for entry, wanted in zip(answer, labels[text], strict=True):
            assert entry["score"] == pytest.approx(wanted["score"], abs=BOUND)

    before = await _calls(client)
    draw = random.Random(3)
    for _ in range(ROUNDS):
        calls = [classify(text) for text in texts]
        for place in range(len(QUERIES)):
            order = list(range(len(contexts[place])))
            draw.shuffle(order)
            calls.append(rank(place, order))
        draw.shuffle(calls)
        await asyncio.gather(*calls)
    inputs, calls_made = (now - then for now, then in zip(await _calls(client), before, strict=True))
    assert inputs >= ROUNDS * (TEXTS + sum(map(len, contexts)))
    assert inputs > 2 * calls_made, "without neighbours nothing was tested"


async def test_a_context_counts_as_many_tokens_among_others_as_alone(client: httpx.AsyncClient) -> None:
    query, contexts = "abc", _texts(CONTEXTS, seed=30)
    alone = 0
    for text in contexts:
        answer = await _run(client, RERANKER, {"query": query, "contexts": [{"text": text}]})
        alone += answer["usage"]["prompt_tokens"]
    given = [{"text": text} for text in contexts]
    together = await _run(client, RERANKER, {"query": query, "contexts": given})
    assert together["usage"]["prompt_tokens"] == alone > 3 * CONTEXTS


async def _score(client: httpx.AsyncClient, query: str, text: str) -> float:
    answer = await _run(client, RERANKER, {"query": query, "contexts": [{"text": text}]})
    (entry,) = answer["response"]
    assert entry["id"] == 0
    score: float = entry["score"]
    return score


async def _calls(client: httpx.AsyncClient) -> tuple[float, float]:
    """Texts and pairs that were sent to Triton, and in how many calls."""
    page = (await client.get(str(client.base_url.join("/metrics")))).text
    pattern = r"^tritonflare_call_texts_{}(?:{{.*}})? (\S+)$"
    texts, calls = (
        sum(map(float, re.findall(pattern.format(kind), page, re.MULTILINE))) for kind in ("sum", "count")
    )
    return texts, calls


def _assert_order(found: list[tuple[int, float]], alone: list[float]) -> None:
    """Best first; contexts that are apart by more than the bound alone stand in that order."""
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    for (better, _), (worse, _) in itertools.pairwise(found):
        assert alone[better] >= alone[worse] - BOUND
