"""The request forms of rerankers before a random reranker inside the real Triton."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded.server import RESTRICTED_KEY, TritonServer
from export.checkpoint import load_checkpoint
from export.plan import ExportPlan
from export.reference import logits
from export.run import run_export
from tests.support.servers import ACCOUNT, TOKEN, running
from tests.support.small_checkpoints import LENIENT, POSITIONS, WORDS, write_checkpoint

pytestmark = pytest.mark.needs_triton

LETTERS = WORDS[4:]
QUERY = "a b c"
TEXTS = ["d e f", "", "z " * 7, "a b c", "k " * 500, "m n o p q"]
FORMS = ("/rerank", "/v1/rerank", "/v2/rerank", "/predict", "run")


@dataclass(frozen=True)
class Served:
    """A gateway before the reranker."""

    client: httpx.Client
    source: Path

    def scores(self, form: str, query: str, texts: list[str]) -> list[float]:
        """Ask in one form; return the score of each text, in the order of the request."""
        path = form
        body: dict[str, object] = {"query": query, "texts": texts}
        if form in ("/v1/rerank", "/v2/rerank"):
            body = {"query": query, "documents": texts}
        elif form == "/predict":
            body = {"inputs": [[query, text] for text in texts]}
        elif form == "run":
            path = f"/client/v4/accounts/{ACCOUNT}/ai/run/{self.client.get('/info').json()['model_id']}"
            body = {"query": query, "contexts": [{"text": text} for text in texts]}
        answer: Any = self.client.post(path, json=body).raise_for_status().json()
        if form == "/predict":
            return [entry["score"] for (entry,) in answer]
        ranks = answer if form == "/rerank" else answer.get("results") or answer["result"]["response"]
        found = {rank.get("index", rank.get("id")): _score(rank) for rank in ranks}
        assert list(found.values()) == sorted(found.values(), reverse=True)
        return [found[place] for place in range(len(texts))]


def _score(rank: dict[str, float]) -> float:
    return rank["relevance_score"] if "relevance_score" in rank else rank["score"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("reranker")
    source = write_checkpoint(folder / "m", labels=1, family="bert")
    plan = ExportPlan(
        source, folder / "models", folder / "artefacts", precision="fp32", limits=LENIENT, timing=None,
        all_precisions=False,
    )  # fmt: skip
    run_export(plan)
    with TritonServer(plan.repository) as triton:
        settings = {
            "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
            "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={triton.secret}",
            "GATEWAY_REQUEST_TIMEOUT_S": "60",
        }
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with (
            running("gateway", "--port", "0", "--triton-url", triton.address, **settings) as program,
            httpx.Client(
                base_url=program.url.partition("/client/")[0], headers=headers, timeout=60
            ) as client,
        ):
            yield Served(client, source)


def test_raw_scores_are_the_logits_of_the_reference(served: Served, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(served.source, tmp_path)
    texts = ["d e f", "z", "a b c"]
    body = {"query": QUERY, "texts": texts, "raw_scores": True}
    ranks = served.client.post("/rerank", json=body).raise_for_status().json()
    query = [WORDS.index(letter) for letter in QUERY.split()]
    for rank in ranks:
        text = [WORDS.index(letter) for letter in texts[rank["index"]].split()]
        ids, types = [2, *query, 3, *text, 3], [0] * (len(query) + 2) + [1] * (len(text) + 1)
        assert rank["score"] == pytest.approx(float(logits(checkpoint.encoder, ids, types)[0]), abs=1e-5)
    assert len({round(rank["score"], 4) for rank in ranks}) == 3  # else agreeing would be no news


def test_every_form_gets_the_same_scores_an_empty_and_a_long_text_included(served: Served) -> None:
    # The Workers AI API takes no empty text.
    expected = served.scores("/rerank", QUERY, TEXTS)
    for form in FORMS[1:4]:
        assert served.scores(form, QUERY, TEXTS) == pytest.approx(expected, abs=1e-6)
    places = [place for place, text in enumerate(TEXTS) if text]
    run = served.scores("run", QUERY, [TEXTS[place] for place in places])
    assert run == pytest.approx([expected[place] for place in places], abs=1e-6)


def test_what_is_too_long_is_cut_or_refused(served: Served) -> None:
    body = {"query": QUERY, "texts": TEXTS}
    assert served.client.post("/rerank", json=body).headers["x-truncated"] == "true"
    refused = served.client.post("/rerank", json=body | {"truncate": False})
    assert refused.status_code == 422
    assert f"at most {POSITIONS} tokens" in refused.json()["error"]
    for path, key, status, room in (
        ("/rerank", "texts", 422, "`query` leaves no room for an element of `texts`"),
        ("/v1/rerank", "documents", 400, "'query' leaves no room for a document"),
    ):
        long = served.client.post(path, json={"query": "a " * POSITIONS, key: ["b"]})
        assert long.status_code == status
        assert f"{room}: the model reads {POSITIONS} tokens" in long.text


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(LETTERS, k=count))


def test_requests_of_all_forms_at_once_get_the_scores_they_get_alone(served: Served) -> None:
    rng = random.Random(5)
    asked = []
    for number in range(60):
        texts = [
            " ".join(rng.choices(LETTERS, k=rng.choice((1, 3, 9, 40)))) for _ in range(rng.randint(1, 8))
        ]
        asked.append((FORMS[number % len(FORMS)], " ".join(rng.choices(LETTERS, k=rng.randint(1, 6))), texts))
    alone = [served.scores(*one) for one in asked]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda one: served.scores(*one), asked))
    for one, other in zip(alone, together, strict=True):
        assert other == pytest.approx(one, abs=1e-6)
        assert sorted(range(len(one)), key=one.__getitem__) == sorted(
            range(len(other)), key=other.__getitem__
        )
