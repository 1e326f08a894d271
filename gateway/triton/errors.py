"""Maps gRPC status codes to the domain's errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from gateway.domain.errors import (
    AiError,
    BackendFailed,
    BackendUnavailable,
    DeadlineExceeded,
    ModelUnavailable,
    Overloaded,
    without_frames,
)
from gateway.triton.outages import Outages
from gateway.triton.status import CallFailed


def own_error(code: grpc.StatusCode) -> AiError:
    """Return our error for a gRPC status, without Triton's text."""
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            # Our own cancellations never arrive as a status, so CANCELLED comes from the server.
            return BackendUnavailable()
        case grpc.StatusCode.NOT_FOUND:
            # The catalogue had the model a moment ago, so it is being replaced.
            return ModelUnavailable()
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded()
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded()
        case _:
            return BackendFailed()


@contextmanager
def mapped_errors(call: str, outages: Outages) -> Iterator[None]:
    """Turn what a gRPC call raises into our tree.

    Triton's words go nowhere, not even to the log: an INTERNAL error may carry a traceback with
    paths and a part of a text. Triton's own log has them.
    """
    try:
        yield
    except CallFailed as exc:
        # The new error gets no name here, or this frame would hold it.
        level = logging.ERROR if isinstance(own_error(exc.code), BackendFailed) else logging.WARNING
        outages.failed(call, exc, level)
        # The call holds it, and so the frames.
        raise own_error(without_frames(exc).code) from None
    outages.worked()
