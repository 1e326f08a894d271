"""Batches that are fetched later: a durable store, and the runner that answers them with what is idle."""
