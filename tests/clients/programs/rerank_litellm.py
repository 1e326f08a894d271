"""LiteLLM's ``rerank`` by each of its providers whose form is served."""

from __future__ import annotations

from typing import Any

import litellm

from tests.clients.programs.common import Target

litellm.suppress_debug_info = True


def _rerank(target: Target, provider: str, **options: Any) -> Any:
    query, *documents = target.texts
    given = {"model": f"{provider}/{target.model}", "query": query, "documents": documents} | options
    return litellm.rerank(**given, api_key=target.token, api_base=f"http://{target.http}")


def ranks(target: Target) -> Any:
    """Index and score of each document, by provider."""
    found = {}
    for provider in ("cohere", "jina_ai", "huggingface", "hosted_vllm", "infinity"):
        # Infinity's form has documents as strings, all others as objects.
        options = {"return_documents": False} if provider == "infinity" else {}
        results = _rerank(target, provider, **options).results
        found[provider] = [[rank["index"], rank["relevance_score"]] for rank in results]
        if not options:
            found[f"{provider} texts"] = [rank["document"]["text"] for rank in results]
    return found


def best(target: Target) -> Any:
    """The best one alone."""
    return [rank["index"] for rank in _rerank(target, "cohere", top_n=1).results]


def refused(target: Target) -> Any:
    """Class and status of an unknown model."""
    try:
        return _rerank(target, "cohere", model="cohere/rerank-v3.5")
    except litellm.NotFoundError as error:
        return [type(error).__name__, error.status_code, "rerank-v3.5" in str(error)]
