"""The golden answers of the rerankers' APIs; see `golden_answers`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from tests.support.fake_triton import RERANKER, FakeTriton, read_texts, reranker
from tests.support.golden_answers import AUTHORIZED, CACHED, LENGTH, RETRY, VERSION, Case

CANARY = b"This is a canary."
QUERY = "what is red wine"
TEXTS = ("white wine", "red wine is a wine", "beer")
TEI: dict[str, object] = {"query": QUERY, "texts": TEXTS}
DOCUMENTS: dict[str, object] = {"model": RERANKER, "query": QUERY, "documents": TEXTS}
LONG = "wine " * 600

Prepare = Callable[[FakeTriton], None]


def serve_reranker(triton: FakeTriton) -> None:
    """Serve a reranker beside the classifier."""
    triton.ensembles.append(reranker())


def _serve_two(triton: FakeTriton) -> None:
    triton.ensembles += [reranker(), reranker("other", public_name="@cf/acme/other")]


def _fail(code: grpc.StatusCode) -> Prepare:
    async def fault(request: Any, context: Any) -> None:
        if read_texts(request) != [CANARY]:
            await context.abort(code, "words of Triton")

    def prepare(triton: FakeTriton) -> None:
        serve_reranker(triton)
        triton.infer_fault = fault

    return prepare


def _hang(triton: FakeTriton) -> None:
    async def fault(request: Any, context: Any) -> None:
        if read_texts(request) != [CANARY]:
            await asyncio.sleep(60)

    serve_reranker(triton)
    triton.infer_fault = fault


def _case(name: str, path: str, body: object, *, prepare: Prepare = serve_reranker, **more: Any) -> Case:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Case(name, sent, path, prepare=prepare, **more)


def _tei() -> list[Case]:
    batch = {"inputs": [["This pizza is great!"], ["It is not."]]}
    return [
        _case("tei-rerank", "/rerank", TEI),
        _case("tei-rerank-raw", "/rerank", TEI | {"raw_scores": True, "return_text": True}),
        _case("tei-rerank-truncated", "/rerank", TEI | {"texts": [LONG, "red wine"]}),
        _case("tei-rerank-cached", "/rerank", TEI, settings=CACHED, before=(json.dumps(TEI).encode(),)),
        _case("tei-predict", "/predict", {"inputs": "This pizza is great!"}),
        _case("tei-predict-raw", "/predict", {"inputs": "This pizza is great!", "raw_scores": True}),
        _case("tei-predict-batch", "/predict", batch),
        _case("tei-predict-pair", "/predict", {"inputs": [QUERY, "red wine"]}),
        Case("tei-info", None, "/info", "GET", prepare=serve_reranker, named=VERSION + LENGTH),
        Case("tei-info-classifier", None, "/info?model=sst2", "GET", named=VERSION + LENGTH),
        Case("tei-health", None, "/health", "GET", headers={}),
    ]


def _tei_errors() -> list[Case]:
    wrong: dict[str, object] = {
        "400-empty": TEI | {"texts": []},
        "400-query": TEI | {"query": ""},
        "400-json": b"query=wine",
        "404": TEI | {"model": "@cf/no/such"},
        "422-required": {"query": QUERY},
        "422-type": TEI | {"texts": ["a", 1]},
        "422-count": TEI | {"texts": ["a"] * 3},
        "422-tokens": TEI | {"texts": ["red wine", LONG], "truncate": False},
        "422-query": TEI | {"query": LONG},
        "422-direction": TEI | {"truncation_direction": "Left"},
        "424-task": TEI | {"model": "sst2"},
    }
    few = {"max_contexts": 2}
    return [
        *(
            _case(f"tei-{name}", "/rerank", body, settings=few if name == "422-count" else {})
            for name, body in wrong.items()
        ),
        *_common_errors("tei", "/rerank", TEI),
        _case("tei-424-no-reranker", "/rerank", TEI, prepare=lambda triton: None),
        _case("tei-424-several", "/rerank", TEI, prepare=_serve_two),
        _case("tei-424", "/rerank", TEI, prepare=_fail(grpc.StatusCode.INTERNAL)),
        _case("tei-predict-422-query", "/predict", {"inputs": [[LONG, "red wine"]]}),
        _case("tei-predict-422-mixed", "/predict", {"inputs": [["a"], ["a", "b"]]}),
        _case("tei-predict-422-list", "/predict", {"inputs": ["a", "b", "c"]}),
        _case("tei-predict-424", "/predict", {"inputs": ["a", "b"]}, prepare=lambda triton: None),
    ]


def _cohere() -> list[Case]:
    objects = {"documents": [{"text": text} for text in TEXTS]}
    return [
        _case("rerank-v1", "/v1/rerank", DOCUMENTS),
        _case("rerank-v2", "/v2/rerank", DOCUMENTS | {"top_n": 2, "max_tokens_per_doc": 4096}),
        _case("rerank-documents", "/rerank", DOCUMENTS | objects | {"top_n": 1, "return_documents": True}),
        _case("rerank-truncated", "/v1/rerank", DOCUMENTS | {"documents": [LONG]}),
        _case("rerank-no-model", "/v1/rerank", {"query": QUERY, "documents": TEXTS}),
    ]


def _cohere_errors() -> list[Case]:
    wrong: dict[str, object] = {
        "400-empty": DOCUMENTS | {"documents": []},
        "400-query": DOCUMENTS | {"query": ""},
        "400-required": {"query": QUERY},
        "400-top-n": DOCUMENTS | {"top_n": 0},
        "400-type": DOCUMENTS | {"documents": ["a", {"title": "b"}]},
        "400-fields": DOCUMENTS | {"rank_fields": ["title"]},
        "400-task": DOCUMENTS | {"model": "sst2"},
        "400-long-query": DOCUMENTS | {"query": LONG},
        "400-json": b"{",
        "404": DOCUMENTS | {"model": "rerank-v3.5"},
    }
    return [
        *(_case(f"rerank-{name}", "/v1/rerank", body) for name, body in wrong.items()),
        *_common_errors("rerank", "/v1/rerank", DOCUMENTS),
        _case("rerank-400-count", "/v1/rerank", DOCUMENTS, settings={"max_contexts": 2}),
        _case("rerank-400-several", "/v1/rerank", DOCUMENTS | {"model": ""}, prepare=_serve_two),
        _case("rerank-500", "/v1/rerank", DOCUMENTS, prepare=_fail(grpc.StatusCode.INTERNAL)),
        _case("rerank-documents-404", "/rerank", DOCUMENTS | {"model": "rerank-v3.5"}),
    ]


def _common_errors(name: str, path: str, body: Mapping[str, object]) -> Sequence[Case]:
    sent = json.dumps(body).encode()
    return [
        _case(f"{name}-401", path, body, headers={}),
        _case(f"{name}-401-unknown-token", path, body, headers={"Authorization": "Bearer unknown"}),
        _case(f"{name}-403", path, body, headers=AUTHORIZED | {"cf-account-id": "another"}),
        Case(f"{name}-405", None, path, "GET"),
        _case(f"{name}-408", path, body, settings={"request_timeout_s": 0.2}, prepare=_hang),
        _case(f"{name}-413", path, body, settings={"max_body_bytes": 20}),
        _case(
            f"{name}-429",
            path,
            body,
            settings={"max_requests_in_flight": 3, "max_batch_texts": 1},
            prepare=_hang,
            before=(sent,),
            wait_for_before=False,
        ),
        _case(
            f"{name}-429-rate",
            path,
            body,
            settings={"requests_per_minute": 1, "max_batch_texts": 1},
            before=(sent,),
            named=RETRY,
        ),
        _case(f"{name}-503", path, body, prepare=_fail(grpc.StatusCode.UNAVAILABLE)),
    ]


RERANK_CASES = [*_tei(), *_tei_errors(), *_cohere(), *_cohere_errors()]
