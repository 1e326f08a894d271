"""The seam where gRPC's errors become ours."""

from __future__ import annotations

import logging
import time
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
from gateway.triton.status import CallFailed

_log = logging.getLogger("tritonflare.backend")

_PAUSE_S = 1.0
_said: dict[tuple[str, str], float] = {}
"""When a kind of failure was last written down; of statuses and reasons there are few."""


def own_error(code: grpc.StatusCode) -> AiError:
    """Return our error for a gRPC status; the texts of Triton stay behind."""
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            # Our own cancellations never come as a status, so with CANCELLED the server gave up.
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
def mapped_errors(call: str) -> Iterator[None]:
    """Turn what a gRPC call raises into our tree.

    Triton's words go nowhere, not even to the log: an INTERNAL error may carry a traceback with
    paths and a piece of somebody's text. Triton's own log has them.
    """
    try:
        yield
    except CallFailed as exc:
        _write_down(call, exc)
        # The call holds it, and so the frames. And no name for ours, or this frame would hold it.
        raise own_error(without_frames(exc).code) from None


def _write_down(call: str, failure: CallFailed) -> None:
    level = logging.ERROR if isinstance(own_error(failure.code), BackendFailed) else logging.WARNING
    if level == logging.ERROR or _quiet_since(failure):
        _log.log(level, "%s: %s (%s); Triton's own log may say why", call, failure.code.name, failure.reason)


def _quiet_since(failure: CallFailed) -> bool:
    """Whether nothing was said of such failures for a second: a server that is away fails every call."""
    now = time.monotonic()
    kind = (failure.code.name, failure.reason)
    if now - _said.get(kind, -_PAUSE_S) < _PAUSE_S:
        return False
    _said[kind] = now
    return True
