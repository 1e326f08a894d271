"""``grpc.health.v1.Health``: readiness as gRPC's balancers and Kubernetes' probes ask for it.

The servicer of grpcio-health-checking is not used: a watcher that does not read holds its lock, so health
would not change any more, and when one of two watchers leaves, the other is not notified again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.domain.errors import NoSuchService
from gateway.inference_protocol.grpc.protobuf import Message

LIVENESS = "livez"
"""A service that is healthy as long as the process answers; all others are healthy when it is ready."""
_POLL_S = 0.1
"""Time between two checks of the status; a watcher learns of a change this much later at most."""
_Status = health_pb2.HealthCheckResponse.ServingStatus


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Reports whether requests would be served; `Front` calls both methods as generators.

    Args:
        services: names that are known; the empty one is the server.
        is_ready: whether requests would be served now.
    """

    def __init__(self, services: frozenset[str], is_ready: Callable[[], bool]) -> None:
        self._services = services | {"", LIVENESS}
        self._is_ready = is_ready

    async def Check(self, request: Message, context: object) -> AsyncIterator[Message]:
        """Report the status now.

        Raises:
            NoSuchService: the service is unknown.
        """
        if request.service not in self._services:
            raise NoSuchService(request.service)
        yield health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: Message, context: object) -> AsyncIterator[Message]:
        """Report the status now and whenever it changes."""
        reported: Message | None = None
        while True:
            status = self._status(request.service)
            if status != reported:
                reported = status
                yield health_pb2.HealthCheckResponse(status=status)
            await asyncio.sleep(_POLL_S)

    def _status(self, service: str) -> Message:
        if service not in self._services:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if service == LIVENESS or self._is_ready() else _Status.NOT_SERVING
