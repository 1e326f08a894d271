"""How a call fails: gRPC's status codes, without the server's words."""

from __future__ import annotations

import grpc

_SILENT_STUB = "is not healthy"
"""In the INTERNAL error of Triton's python backend for a model whose process was silent for a second."""


class CallFailed(Exception):
    """A call ended with another status than OK; the server's words are not kept."""

    def __init__(self, code: grpc.StatusCode, reason: str = "the server's status") -> None:
        """Take the status, and where it comes from, in words of ours for the log."""
        super().__init__(code.name)
        self.code = code
        self.reason = reason


class StubSilent(CallFailed):
    """The process of a model is gone, stuck, or was not given the processor for a second."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, "a model's process is silent")


def failure_of(error: grpc.aio.AioRpcError) -> CallFailed:
    """Return what a gRPC error means, without its text."""
    if _SILENT_STUB in (error.details() or ""):
        return StubSilent()
    return CallFailed(error.code())
