"""Text Embeddings Inference: ``/rerank``, ``/predict``, ``/info``, ``/health``."""

from gateway.rerank_apis.tei.requests import read_rerank
from gateway.rerank_apis.tei.responses import failure, prediction_failure, ranking

__all__ = ["failure", "prediction_failure", "ranking", "read_rerank"]
