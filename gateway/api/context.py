"""One request to the API, and what its handling has found out so far."""

from __future__ import annotations

from collections.abc import Callable

from gateway.server.message import HttpRequest
from gateway.telemetry.record import RequestRecord


class RequestContext:
    """A request on its way through routing, authentication and its handler."""

    __slots__ = ("api", "binding_form", "http", "on_response", "params", "record")

    def __init__(self, http: HttpRequest, ray_id: str) -> None:
        self.http = http
        self.record = RequestRecord(http.method, ray_id)
        self.api = True
        """Part of the API, as opposed to the operators' endpoints."""
        self.binding_form = False
        """Errors are rendered as a Workers binding reads them."""
        self.params: dict[str, str] = {}
        """The parameters of the route's template."""
        self.on_response: Callable[[], None] | None = None
        """Ends the span of a request that is traced."""
