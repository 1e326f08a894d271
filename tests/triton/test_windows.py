"""Long texts in windows inside the real Triton, against ``transformers``, ONNX Runtime and numpy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from onnxruntime import InferenceSession
from transformers import AutoTokenizer

from embedded.server import RESTRICTED_KEY, TritonServer
from export.repository.inventory import read_inventory
from tests.support.servers import ACCOUNT, TOKEN, running
from tests.support.texts import CHECKPOINT, hostile_texts, sentences
from tests.triton.conftest import INT8, JOINED

pytestmark = pytest.mark.needs_triton

LIMIT, OVERLAP, MOST = 512, 64, 4
TEXTS = {
    "just too long": "great " * 511,
    "exactly as long as the model reads": "great " * 510,
    "two windows to the last token": "good " * (510 + 446),
    "one token more": "bad " * (510 + 446 + 1),
    "sentences": " ".join(sentences()[:60]),
    "no word is like another": "".join(hostile_texts(200, seed=3))[:4_000],
    "above 16 KiB": "wonderful " * 1_700,  # cutting it reads less than two of its four windows
    "more than are read": "a lovely film and a dull one " * 5_000,
}
CASES = [*((INT8, kind) for kind in TEXTS), (JOINED, "sentences"), (JOINED, "above 16 KiB")]


def expected(session: InferenceSession, text: str) -> tuple[list[float], int, int, bool]:
    """Mean probabilities, tokens read, windows read, and whether there are more of them."""
    tokenizer: Any = AutoTokenizer.from_pretrained(CHECKPOINT)
    windows = tokenizer(
        text, truncation=True, max_length=LIMIT, stride=OVERLAP, return_overflowing_tokens=True
    )["input_ids"]
    rows = []
    for ids in windows[:MOST]:
        feed = {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}
        named = {key: np.array(value, np.int64) for key, value in feed.items()}
        logits = np.asarray(session.run(["logits"], named)[0], np.float64)[0]
        rows.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())
    lengths = [len(ids) for ids in windows[:MOST]]
    mean = np.average(rows, axis=0, weights=[length - 2 for length in lengths])
    return mean.tolist(), sum(lengths), len(lengths), len(windows) > MOST


@pytest.fixture(scope="module")
def client(triton: TritonServer) -> Iterator[httpx.Client]:
    settings = {
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
        "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={triton.secret}",
        "GATEWAY_REQUEST_TIMEOUT_S": "60",
        "GATEWAY_MAX_WINDOWS": str(MOST),
    }
    with running("gateway", "--port", "0", "--triton-url", triton.address, **settings) as gateway:
        base = f"{gateway.url}/client/v4/accounts/{ACCOUNT}/ai/run/"
        with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
            yield client


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_answer_is_the_mean_over_the_windows_of_transformers(
    triton: TritonServer, client: httpx.Client, name: str, kind: str
) -> None:
    (published,) = (each for each in read_inventory(triton.repository) if each.name == name)
    session, text = InferenceSession(str(published.weights_file(triton.repository))), TEXTS[kind]
    scores, tokens, windows, truncated = expected(session, text)
    answer = client.post(f"{name}?long=window", json={"text": text})
    assert scores_of(answer) == pytest.approx(scores, abs=1e-4)
    assert answer.headers.get("x-windows") == (str(windows) if windows > 1 else None)
    assert answer.headers.get("x-truncated") == ("true" if truncated else None)
    assert answer.headers["cf-ai-neurons"] == f"{tokens * 2394 / 1e6:.2f}"
    cut = client.post(name, json={"text": text})
    assert cut.headers.get("x-truncated") == ("true" if windows > 1 else None)
    assert "x-windows" not in cut.headers
    if windows == 1:
        assert answer.json() == cut.json()


async def test_windows_beside_other_texts_change_nothing(client: httpx.Client) -> None:
    url, text = f"{client.base_url}{INT8}?long=window", TEXTS["sentences"]
    alone = scores_of(client.post(url, json={"text": text}))
    others = [TEXTS["above 16 KiB"], "short", TEXTS["one token more"], *sentences()[:20]]
    async with httpx.AsyncClient(headers=client.headers, timeout=120) as asking:
        asked = [asking.post(url, json={"text": each}) for each in (*others, text, text, *others)]
        answers = await asyncio.gather(*asked)
    for answer in answers[len(others) : len(others) + 2]:
        assert scores_of(answer) == pytest.approx(alone, abs=1e-4)


def scores_of(answer: httpx.Response) -> list[float]:
    assert answer.status_code == 200, answer.text
    return [entry["score"] for entry in answer.json()["result"]]
