"""LangChain's reranker for Workers AI."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_cloudflare import CloudflareWorkersAIReranker
from langchain_core.documents import Document

from tests.clients.programs.common import Target


def _reranker(target: Target, **options: Any) -> Any:
    return CloudflareWorkersAIReranker(
        api_base_url=f"http://{target.http}/client/v4/accounts",
        account_id="0123456789abcdef0123456789abcdef",
        api_token=target.token,
        model_name=target.model,
        **options,
    )


def ranks(target: Target) -> Any:
    """Blocking and not, with a gateway's header and without."""
    query, *documents = target.texts
    blocking = _reranker(target).rerank(query=query, documents=documents)
    wrapped = [Document(page_content=text) for text in documents]
    other = asyncio.run(_reranker(target, ai_gateway="mine").arerank(query=query, documents=wrapped, top_k=1))
    return {
        "all": [[rank.index, rank.score] for rank in blocking],
        "best": [[rank.index, rank.score] for rank in other],
        "texts": [rank.text for rank in blocking],
    }
