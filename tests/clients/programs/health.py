"""grpc.health.v1, as the probes of Kubernetes call it, without a token."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.clients.programs.common import Target, run

SERVICES = ("", "inference.GRPCInferenceService", "no.such.Service")


def check(target: Target) -> Any:
    with grpc.insecure_channel(target.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return {service: _status(stub, service) for service in SERVICES}


def _status(stub: Any, service: str) -> str:
    try:
        return _name(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30))
    except grpc.RpcError as error:
        return str(error.code().name)


def watch(target: Target) -> Any:
    """The first status of a watch."""
    with grpc.insecure_channel(target.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        statuses = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=30)
        first = _name(next(statuses))
        statuses.cancel()
    return first


def _name(response: Any) -> str:
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


if __name__ == "__main__":
    run({"check": check, "watch": watch})
