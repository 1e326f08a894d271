"""The HTTP front of tritonflare: the Workers AI wire contract over NVIDIA Triton's gRPC.

Imports point one way: ``http`` → ``domain`` ← ``triton``; only ``main`` knows all three.
"""
