"""``workers-ai-provider`` of npm, by which the AI SDK ranks documents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients.fake_reranker import gateway_with_reranker
from tests.support.clients.node import require_latest
from tests.support.clients.shim import run_program
from tests.support.fake_triton import RERANKER
from tests.support.servers import ACCOUNT, TOKEN, Program

WITHOUT_NODE = True
"""It runs with the node of today's tools."""

QUERY = "which pizza is great"
DOCUMENTS = ["the waiter was rude", "this pizza is great", "a pizza"]
SCORES = [1 / (1 + math.exp(-logit)) for logit in (2.0, 0.0, -1.0)]
"""Three words in common, one and none, less one: best first."""


@pytest.fixture(scope="module")
def reranking_gateway() -> Iterator[Program]:
    with gateway_with_reranker() as program:
        yield program


def ranked(home: Path, gateway: Program, *calls: dict[str, Any], token: str = TOKEN) -> list[dict[str, Any]]:
    given = {"model": RERANKER, "query": QUERY, "documents": DOCUMENTS}
    return run_program(
        require_latest(),
        home,
        "rerank.mjs",
        gateway=gateway.url,
        token=token,
        account=ACCOUNT,
        calls=[given | call for call in calls],
    )


def check_order(ranking: list[dict[str, Any]], *order: int) -> None:
    assert [entry["originalIndex"] for entry in ranking] == list(order)
    assert [entry["document"] for entry in ranking] == [DOCUMENTS[place] for place in order]
    scores = [entry["score"] for entry in ranking]
    assert scores == pytest.approx(SCORES[: len(scores)], abs=1e-6)


def test_documents_are_ranked_best_first_and_cut(tmp_path: Path, reranking_gateway: Program) -> None:
    whole, cut = ranked(tmp_path, reranking_gateway, {}, {"topN": 2})
    check_order(whole["ranking"], 1, 2, 0)
    check_order(cut["ranking"], 1, 2)
    (request,) = cut["requests"]
    assert request["url"] == f"https://api.cloudflare.com/client/v4/accounts/{ACCOUNT}/ai/run/{RERANKER}"
    contexts = [{"text": document} for document in DOCUMENTS]
    assert request["body"] == {"query": QUERY, "contexts": contexts, "top_k": 2}


def test_objects_are_ranked_as_their_json(tmp_path: Path, reranking_gateway: Program) -> None:
    documents = [{"name": "rude waiter"}, {"name": "this pizza is fine"}]
    (seen,) = ranked(tmp_path, reranking_gateway, {"documents": documents})
    assert [entry["document"] for entry in seen["ranking"]] == documents[::-1]


def test_refusals_are_the_sdk_s_errors(tmp_path: Path, reranking_gateway: Program) -> None:
    unknown, empty = ranked(tmp_path, reranking_gateway, {"model": "@cf/no/model"}, {"query": ""})
    assert (unknown["error"]["name"], unknown["error"]["status"]) == ("AI_APICallError", 400)
    assert "No such model @cf/no/model or task" in unknown["error"]["message"]
    assert empty["error"]["status"] == 400
    assert "Error: Length of '/query' must be >= 1 not met" in empty["error"]["message"]
    (stranger,) = ranked(tmp_path, reranking_gateway, {}, token="wrong")
    assert stranger["error"]["status"] == 401
    assert "Authentication error" in stranger["error"]["message"]


def test_with_a_gateway_s_id_the_ai_gateway_s_path_is_called(
    tmp_path: Path, reranking_gateway: Program
) -> None:
    whole, cut, unknown = ranked(
        tmp_path,
        reranking_gateway,
        {"id": "mine"},
        {"id": "mine", "topN": 1},
        {"id": "mine", "model": "@cf/no/model"},
    )
    check_order(whole["ranking"], 1, 2, 0)
    check_order(cut["ranking"], 1)
    (request,) = whole["requests"]
    gateway = "https://gateway.ai.cloudflare.com/v1"
    assert request["url"] == f"{gateway}/{ACCOUNT}/mine/workers-ai/run/{RERANKER}"
    assert request["headers"]["cf-aig-skip-cache"] == "true"
    assert (unknown["error"]["status"], unknown["error"]["name"]) == (400, "AI_APICallError")
    assert "No such model @cf/no/model or task" in unknown["error"]["message"]
