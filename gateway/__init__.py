"""The HTTP front of tritonflare: the Workers AI wire contract over NVIDIA Triton's gRPC.

Imports point one way: ``http`` → ``domain`` ← ``triton``; only ``main`` knows all three.
"""

import os

# gRPC's core reads this when it is imported. It writes lines of its own form to stderr, even as errors those
# with what a client or a server sent: each malformed header of a client would be one.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
