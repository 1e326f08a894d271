"""How a call ends: gRPC's status codes, and what HTTP/2 says where there is none."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from gateway.triton.frames import Reason

_OF_RESET = {
    Reason.REFUSED_STREAM: grpc.StatusCode.UNAVAILABLE,
    Reason.CANCEL: grpc.StatusCode.CANCELLED,
    Reason.ENHANCE_YOUR_CALM: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_OF_HTTP = dict.fromkeys((b"429", b"502", b"503", b"504"), grpc.StatusCode.UNAVAILABLE)
"""What a proxy says that is no gRPC server (grpc/doc/http-grpc-status-mapping.md)."""
_CODES = {str(code.value[0]).encode(): code for code in grpc.StatusCode}
_SILENT_STUB = b"is not healthy"
"""Said by Triton's python backend, with INTERNAL, of a model whose process did not answer for a second."""


class CallFailed(Exception):
    """A call ended with another status than OK; the server's words are not kept."""

    def __init__(self, code: grpc.StatusCode, reason: str = "the server's status") -> None:
        """Take the status, and who gave it, in words of ours for the log."""
        super().__init__(code.name)
        self.code = code
        self.reason = reason


class StubSilent(CallFailed):
    """The process of a model is gone, stuck, or was not given the processor for a second."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, "a model's process is silent")


def of_reset(reason: int, *, leaving: bool) -> CallFailed:
    """What a reset stream means.

    Args:
        reason: the code of RST_STREAM.
        leaving: the server has said that it stops; it takes its calls along.
    """
    code = _OF_RESET.get(reason, grpc.StatusCode.INTERNAL)
    if leaving and code is grpc.StatusCode.CANCELLED:
        return CallFailed(grpc.StatusCode.UNAVAILABLE, "the server leaves")
    return CallFailed(code)


def of_headers(headers: Mapping[bytes, bytes]) -> CallFailed | None:
    """What the headers at the end of a stream mean; None is OK."""
    status = headers.get(b"grpc-status")
    if status is None:
        return CallFailed(_OF_HTTP.get(headers.get(b":status", b"200"), grpc.StatusCode.UNKNOWN), "no status")
    if status == b"0":
        return None
    if _SILENT_STUB in headers.get(b"grpc-message", b""):
        return StubSilent()
    return CallFailed(_CODES.get(status, grpc.StatusCode.UNKNOWN))
