"""One HTTP request to the API, and what its handling has found out so far."""

from __future__ import annotations

from collections.abc import Callable

from gateway.domain.errors import TritonflareError
from gateway.domain.options import NO_OPTIONS
from gateway.pipeline.caller import Caller
from gateway.server.message import HttpRequest, Response
from gateway.telemetry.record import RequestRecord

RenderFailure = Callable[[TritonflareError, str | None], Response]
"""Renders an error, and the AI request id if there is one."""


class RequestContext:
    """A request on its way through routing, authentication and its handler."""

    __slots__ = ("account", "api", "batch_owner", "http", "options", "params", "record", "render_failure")

    def __init__(self, http: HttpRequest, ray_id: str, render_failure: RenderFailure) -> None:
        self.http = http
        self.record = RequestRecord(http.method, ray_id)
        self.api = True
        """Part of the API, as opposed to the operators' endpoints."""
        self.render_failure = render_failure
        """Renders its errors in the form of its route."""
        self.account = ""
        """The account whose rate it counts against; see `authenticate`."""
        self.batch_owner = ""
        """Whose queued batches it may fetch; see `batch_owner`."""
        self.params: dict[str, str] = {}
        """The parameters of the route's template."""
        self.options = NO_OPTIONS
        """Those of its headers."""

    @property
    def caller(self) -> Caller:
        """The request as the pipeline sees it."""
        return Caller(self.account, self.record, self.http, self.options.patience_s, self.batch_owner)
