"""The gateway: Cloudflare's Workers AI API and the Open Inference Protocol in front of NVIDIA Triton.

Imports point one way: the fronts (``api``, ``inference_protocol``) → ``pipeline`` → ``domain`` ← ``triton``.
Only ``composition`` imports them all.
"""

import os

# gRPC's core reads this when it is imported. It writes lines of its own form to stderr, even as errors those
# with what a client or a server sent: each malformed header of a client would be one.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
