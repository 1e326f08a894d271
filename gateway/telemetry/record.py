"""The data of one request for logs, metrics and traces."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from gateway.domain.backend import Timing


def new_ray_id() -> str:
    """Return a fresh id of a request, in the form of Cloudflare's."""
    return f"{secrets.token_hex(8)}-TFL"


@dataclass(slots=True)
class RequestRecord:
    """Filled in while the request is answered; holds no free text of a client."""

    method: str
    ray_id: str
    route: str = "none"
    """The pattern, not the path."""
    model: str = "none"
    """As a metrics label: one of few values, not chosen by clients."""
    version: str | None = None
    """Of the model, once it is known; see `gateway.domain.catalogue.version_id`."""
    ai_request_id: str | None = None
    """Set once the request is for a model or has failed in the AI service; the answer carries it."""
    timing: Timing | None = None
    """Where the time of its texts went; None if nothing was sent for it."""
    trace_id: str | None = None
    """Of a request that is traced."""
    client: str | None = None
    """IP address of the client; set only where the access log has it."""
    status: int = 0
    """Of the answer, as for ``code`` (0 for success) and ``seconds``."""
    code: int = 0
    seconds: float = 0.0
    is_grpc: bool = False
    """A call over gRPC, as opposed to an HTTP request."""
    grpc_status: str | None = None
    """Name of the status that a gRPC call ended with; None for HTTP."""
    end_span: Callable[[], None] | None = None
    """Ends the span of a request that is traced."""
