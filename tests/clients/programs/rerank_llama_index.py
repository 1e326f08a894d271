"""LlamaIndex' postprocessors for TEI and Jina."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

from tests.clients.programs.common import Target


def _ranked(postprocessor: Any, target: Target) -> Any:
    query, *documents = target.texts
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.1) for text in documents]
    found = postprocessor.postprocess_nodes(nodes, query_str=query)
    return [[documents.index(node.text), node.score] for node in found]


def tei(target: Target) -> Any:
    """``/rerank``; this client sends the header as it is given."""
    return _ranked(
        TextEmbeddingInference(
            base_url=f"http://{target.http}", auth_token=f"Bearer {target.token}", top_n=2
        ),
        target,
    )


def jina(target: Target) -> Any:
    """``/v1/rerank``."""
    return _ranked(_jina(target, target.model), target)


def _jina(target: Target, model: str) -> Any:
    return JinaRerank(base_url=f"http://{target.http}/v1", api_key=target.token, model=model, top_n=2)


def jina_refused(target: Target) -> Any:
    """The message that it shows, which it takes from ``detail``."""
    try:
        return _ranked(_jina(target, "jina-reranker-v1-base-en"), target)
    except RuntimeError as error:
        return str(error)
