"""The operators' endpoints: liveness, readiness, metrics."""

from __future__ import annotations

import msgspec
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from gateway.api.context import RequestContext
from gateway.domain.monitor import Monitor
from gateway.server.message import Response
from gateway.telemetry.metrics import Metrics


class Operations:
    """Handlers that need neither a token nor a model."""

    def __init__(self, monitor: Monitor, metrics: Metrics) -> None:
        self._monitor = monitor
        self._metrics = metrics

    async def livez(self, request: RequestContext) -> Response:
        """Answer 200 as long as the process can answer at all."""
        return Response(200, b'{"status":"alive"}')

    async def readyz(self, request: RequestContext) -> Response:
        """Answer 200 when requests would be served, else 503 and why not."""
        reason = self._monitor.why_not_ready()
        if reason is None:
            return Response(200, b'{"status":"ready"}')
        return Response(503, msgspec.json.encode({"status": "not ready", "reason": reason}))

    async def metrics(self, request: RequestContext) -> Response:
        """Answer with the metrics in Prometheus' text format."""
        return Response(200, self._metrics.render(), content_type=CONTENT_TYPE_PLAIN_0_0_4.encode())
