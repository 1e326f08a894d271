"""Runs the real tritonserver of the ``nvidia-pytriton`` wheel: no Docker, no GPU, loopback only."""
