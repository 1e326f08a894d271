"""The HTTP front of tritonflare: the Workers AI wire contract over NVIDIA Triton's gRPC.

Imports point one way: ``http`` → ``domain`` ← ``triton``; only ``main`` knows all three.
"""

import os

# gRPC's core reads this when it is imported. At its default it writes lines of its own form to stderr, with
# the server's words in them, each time that a server closes a connection.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
