"""Records each request in the metrics, the traces and the access log."""

from __future__ import annotations

from collections.abc import Callable

from gateway.headers import HeaderSource
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import RequestRecord

BeginSpan = Callable[[HeaderSource, RequestRecord], Callable[[], None] | None]
"""Opens a span; returns what ends it, or None if the request is not traced. See `Tracing.begin`."""


class RequestObserver:
    """Counts, traces and logs requests.

    Args:
        metrics: counts the requests to the API.
        access_log: gets a line about each request.
        begin_span: opens the span of a request; None without tracing.
    """

    def __init__(self, metrics: Metrics, access_log: AccessLog, begin_span: BeginSpan | None = None) -> None:
        self._metrics = metrics
        self._access_log = access_log
        self._begin_span = begin_span

    def begin(self, request: HeaderSource, record: RequestRecord) -> None:
        """Open the span of a request to the API, once ``record`` has its route."""
        if self._begin_span is not None:
            record.end_span = self._begin_span(request, record)

    def end(self, record: RequestRecord, *, api: bool) -> None:
        """Count and log an answered request.

        Args:
            record: complete.
            api: whether it was a request to the API, as opposed to the operators' endpoints.
        """
        if api:
            self._metrics.request_done(record.model, record.code, record.status, record.seconds)
        if record.end_span is not None:
            record.end_span()
        self._access_log.add(record, api=api)
