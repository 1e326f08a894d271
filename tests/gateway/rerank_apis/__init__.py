"""Tests of gateway.rerank_apis."""
