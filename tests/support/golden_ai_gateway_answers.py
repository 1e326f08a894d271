"""The golden answers of reranking in Cloudflare's form and of AI Gateway's paths; see `golden_answers`."""

from __future__ import annotations

import json
from typing import Any

from tests.support.fake_triton import RERANKER, SST2
from tests.support.golden_answers import AI, AUTHORIZED, CACHED, GOOD, Case
from tests.support.golden_rerank_answers import serve_reranker
from tests.support.harness import ACCOUNT, TOKEN

RUN = f"{AI}/run/{RERANKER}"
GATEWAY = f"/v1/{ACCOUNT}/mine"
QUERY = "what is red wine"
CONTEXTS = [{"text": text} for text in ("white wine", "red wine is a wine", "beer")]
RERANK = {"query": QUERY, "contexts": CONTEXTS}


def _rerank(name: str, body: object = RERANK, path: str = RUN, **more: Any) -> Case:
    sent = None if body is None else json.dumps(body).encode()
    return Case(name, sent, path, prepare=serve_reranker, **more)


def _successes() -> list[Case]:
    batch = {"requests": [RERANK | {"external_reference": "first", "top_k": 1}, {"query": QUERY}]}
    long = {"query": QUERY, "contexts": [{"text": "wine " * 600}]}
    return [
        _rerank("run-rerank"),
        _rerank("run-rerank-top-k", RERANK | {"top_k": 2}),
        _rerank("run-rerank-empty", RERANK | {"contexts": []}),
        _rerank("run-rerank-truncated", long),
        _rerank("run-rerank-batch", batch),
        _rerank("run-rerank-cached", settings=CACHED, before=(json.dumps(RERANK).encode(),)),
        _rerank("models-schema-rerank", None, f"{AI}/models/schema?model={RERANKER}", method="GET"),
        Case("run-gateway-run", path=f"{GATEWAY}/workers-ai/run/{SST2}", headers=_AIG),
        Case("run-cache-skipped", settings=CACHED, before=(GOOD,), headers=AUTHORIZED | _SKIP),
        Case("run-universal", json.dumps(_STEPS).encode(), GATEWAY),
    ]


_AIG = {"cf-aig-authorization": f"Bearer {TOKEN}"}
_SKIP = {"cf-aig-skip-cache": "true"}
_STEPS = [
    {"provider": "openai", "endpoint": "chat/completions", "headers": {}, "query": {}},
    {"provider": "workers-ai", "endpoint": f"run/{SST2}", "headers": {}, "query": json.loads(GOOD)},
]


def _refusals() -> list[Case]:
    bodies: dict[str, Any] = {
        "required": {"query": QUERY, "documents": ["a"], "top_n": 1},
        "query": {"query": "", "contexts": []},
        "contexts": RERANK | {"contexts": "a"},
        "context": RERANK | {"contexts": ["a"]},
        "text": RERANK | {"contexts": [{"text": ""}]},
        "top-k": RERANK | {"top_k": 0},
        "top-k-type": RERANK | {"top_k": "3"},
        "many": RERANK | {"contexts": CONTEXTS * 2},
        "long-query": RERANK | {"query": "wine " * 600},
    }
    timeout = AUTHORIZED | {"cf-aig-request-timeout": "5s"}
    return [
        *(
            _rerank(f"5006-rerank-{name}", body, settings={"max_contexts": 5})
            for name, body in bodies.items()
        ),
        Case("5006-option", headers=timeout),
        Case("5006-universal", json.dumps(_STEPS[:1]).encode(), GATEWAY),
        Case("6003-gateway", path=f"{GATEWAY}/workers-ai/{SST2}", headers={"cf-aig-authorization": "x"}),
    ]


def _binding() -> list[Case]:
    third = AUTHORIZED | {"cf-consn-model-id": RERANKER, "cf-consn-sdk-version": "2.0.0"}
    asked = "/ai-gateway/gateways/mine"
    return [
        _rerank("binding-rerank", {"inputs": RERANK, "options": {}}, "/run?version=3", headers=third),
        _rerank("binding-5006-rerank", {"inputs": {"query": QUERY}}, "/run?version=3", headers=third),
        Case("binding-universal", json.dumps(_STEPS).encode(), "/ai-gateway/universal/run/mine"),
        Case("binding-gateway-url", None, f"{asked}/url/workers-ai", "GET"),
        Case("binding-7002", None, f"{asked}/logs/1", "GET"),
    ]


AI_GATEWAY_DESCRIBED = [*_successes(), *_refusals()]
AI_GATEWAY_CASES = [*AI_GATEWAY_DESCRIBED, *_binding()]
