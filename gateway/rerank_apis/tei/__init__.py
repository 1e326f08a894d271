"""Text Embeddings Inference: ``/rerank``, ``/predict``, ``/info``, ``/health``."""

from gateway.rerank_apis.tei.requests import read_rerank
from gateway.rerank_apis.tei.responses import failure, ranking

__all__ = ["failure", "ranking", "read_rerank"]
