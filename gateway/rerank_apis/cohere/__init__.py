"""Cohere and Jina: ``/v1/rerank``, ``/v2/rerank``; ``/rerank`` with ``documents`` (vLLM, Infinity)."""

from gateway.rerank_apis.cohere.requests import RerankBody, has_documents, read_rerank
from gateway.rerank_apis.cohere.responses import failure, ranking

__all__ = ["RerankBody", "failure", "has_documents", "ranking", "read_rerank"]
