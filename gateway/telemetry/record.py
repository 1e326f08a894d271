"""What logs, metrics and traces have to know of one request."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.backend import Timing


@dataclass(slots=True)
class RequestRecord:
    """Filled in while the request is answered; nothing in it that a client could have chosen freely."""

    method: str
    ray_id: str
    route: str = "none"
    """The pattern, not the path."""
    model: str = "none"
    """As a metrics label: bounded, whatever clients send."""
    ai_request_id: str | None = None
    """Set once the request is for a model or has failed in the AI service; the answer carries it."""
    timing: Timing | None = None
    """Where the time went that its texts took; None if nothing was sent for it."""
    trace_id: str | None = None
    """Of a request that is traced."""
    status: int = 0
    """Of the answer, as for ``code`` (0 for success) and ``seconds``."""
    code: int = 0
    seconds: float = 0.0
