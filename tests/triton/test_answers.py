"""What the served model answers, over HTTP, through the gateway and the real Triton."""

from __future__ import annotations

import asyncio
import json
import math
import random
from typing import Any

import httpx
import pytest

from loadtest.golden import GOLDEN
from tests.support.texts import texts_of_words
from tests.triton.conftest import FP32, INT8, JOINED

pytestmark = pytest.mark.needs_triton


def golden() -> list[dict[str, Any]]:
    return [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


def score(response: httpx.Response) -> float:
    """P(POSITIVE) of a good answer."""
    assert response.status_code == 200, response.text
    negative, positive = response.json()["result"]
    assert (negative["label"], positive["label"]) == ("NEGATIVE", "POSITIVE")
    assert math.isclose(negative["score"] + positive["score"], 1, abs_tol=1e-9)
    return float(positive["score"])


def softmax_positive(logits: list[float]) -> float:
    return 1 / (1 + math.exp(logits[0] - logits[1]))


def test_the_documented_request_is_answered_as_documented(client: httpx.Client) -> None:
    response = client.post(INT8, json={"text": "This pizza is great!"})
    body = response.json()
    assert list(body) == ["result", "success", "errors", "messages"]
    assert (body["success"], body["errors"], body["messages"]) == (True, [], [])
    assert score(response) > 0.98  # INT8; the FP32 weights give 0.99 (tests/export)
    assert response.headers["content-type"] == "application/json"


def test_the_older_shape_puts_the_best_label_first(client: httpx.Client) -> None:
    body = client.post(INT8, json={"text": "This pizza is great!"}, params={"result_shape": "items"}).json()
    assert [item["label"] for item in body["result"]["items"]] == ["POSITIVE", "NEGATIVE"]


def test_fp32_scores_equal_the_reference_implementation(client: httpx.Client) -> None:
    shifts = []
    for line in golden():
        response = client.post(FP32, json={"text": line["text"]})
        shifts.append(abs(score(response) - softmax_positive(line["logits"])))
    assert len(shifts) > 200
    assert max(shifts) <= 1e-3


def test_int8_agrees_with_the_reference_implementation(client: httpx.Client) -> None:
    wanted = [softmax_positive(line["logits"]) for line in golden()]
    found = [score(client.post(INT8, json={"text": line["text"]})) for line in golden()]
    agreement = sum((w > 0.5) == (f > 0.5) for w, f in zip(wanted, found, strict=True)) / len(wanted)
    assert agreement >= 0.97


@pytest.mark.parametrize("model", [INT8, FP32, JOINED])
def test_truncation_is_announced_and_counted(client: httpx.Client, model: str) -> None:
    for line in golden():
        response = client.post(model, json={"text": line["text"]})
        assert response.headers.get("x-truncated") == ("true" if line["tokens"] > 512 else None)
        charged = min(line["tokens"], 512) * 0.002394
        assert abs(float(response.headers["cf-ai-neurons"]) - charged) <= 0.005


async def ask(gateway: httpx.AsyncClient, model: str, text: str, slots: asyncio.Semaphore) -> float:
    async with slots:
        return score(await gateway.post(model, json={"text": text}))


@pytest.mark.parametrize(("model", "in_flight"), [(INT8, 8), (INT8, 64), (JOINED, 64)])
async def test_an_answer_does_not_depend_on_its_neighbours(
    client: httpx.Client, model: str, in_flight: int
) -> None:
    texts = texts_of_words(300, longest=120, seed=5)
    alone = {text: score(client.post(model, json={"text": text})) for text in texts}
    order = random.Random(in_flight).sample(texts, len(texts))
    slots = asyncio.Semaphore(in_flight)
    async with httpx.AsyncClient(
        base_url=client.base_url,
        headers=client.headers,
        timeout=120,
        limits=httpx.Limits(max_connections=in_flight),
    ) as gateway:
        found = await asyncio.gather(*(ask(gateway, model, text, slots) for text in order))
    shift = max(abs(alone[text] - value) for text, value in zip(order, found, strict=True))
    flips = [text for text, value in zip(order, found, strict=True) if (value > 0.5) != (alone[text] > 0.5)]
    print(f"\n{in_flight} in flight: largest shift {shift:.3g}, flips {len(flips)}")
    assert shift <= 1e-4
    assert not flips
