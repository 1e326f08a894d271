"""Proves on one machine with an NVIDIA GPU, without a network, what the documents say about GPUs."""
