"""Triton's model repository: configurations, folders, the exchange that publishes them, and what is there.

A model is an ensemble of two steps, each a folder: a tokenizer, which models may share, and
an encoder. Every folder holds numbered versions, of which Triton serves the highest.
"""
