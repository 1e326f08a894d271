"""Cohere's SDK, in its two generations."""

from __future__ import annotations

from typing import Any

import cohere

from tests.clients.programs.common import Target


def v2(target: Target) -> Any:
    """``/v2/rerank``."""
    client = cohere.ClientV2(target.token, base_url=f"http://{target.http}")
    query, *documents = target.texts
    answer = client.rerank(model=target.model, query=query, documents=documents, top_n=2)
    tokens = answer.meta.tokens.input_tokens if answer.meta and answer.meta.tokens else None
    return {"ranks": [[rank.index, rank.relevance_score] for rank in answer.results], "tokens": tokens}


def v1(target: Target) -> Any:
    """``/v1/rerank`` with documents as objects, which come back."""
    client = cohere.Client(target.token, base_url=f"http://{target.http}")
    query, *documents = target.texts
    answer = client.rerank(
        model=target.model,
        query=query,
        documents=[{"text": document} for document in documents],
        return_documents=True,
    )
    return {
        "ranks": [[rank.index, rank.relevance_score] for rank in answer.results],
        "texts": [rank.document.text for rank in answer.results if rank.document],
    }


def refused(target: Target) -> Any:
    """Class, status and message of what ends with an error."""
    outcomes = {}
    for name, token, model in (
        ("wrong token", "wrong", target.model),
        ("unknown model", target.token, "rerank-v3.5"),
        ("empty query", target.token, target.model),
    ):
        client = cohere.ClientV2(token, base_url=f"http://{target.http}")
        query = "" if name == "empty query" else target.texts[0]
        try:
            client.rerank(model=model, query=query, documents=target.texts[1:])
        except cohere.core.ApiError as error:
            outcomes[name] = [type(error).__name__, error.status_code, error.body["message"]]
    return outcomes
