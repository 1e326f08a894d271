"""The gRPC server: listens with gRPC's own HTTP/2, and drains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from tritonclient.grpc import service_pb2_grpc

from gateway.inference_protocol.grpc.call_source import CallSource
from gateway.inference_protocol.grpc.front import Front
from gateway.inference_protocol.grpc.health import HealthServicer
from gateway.inference_protocol.grpc.limits import GrpcLimits
from gateway.inference_protocol.grpc.servicer import InferenceServicer
from gateway.settings import ConfigurationError

SERVICES = ("inference.GRPCInferenceService", "grpc.health.v1.Health", reflection.SERVICE_NAME)
_DRAIN_POLL_S = 0.01
_GOAWAY_S = 0.01
"""Time for GOAWAY to be sent."""
_PING_INTERVAL_S = 10
"""A client that sends pings more often is disconnected (gRFC A8)."""
_PENDING_SHARE = 4
"""Calls that wait to be taken, for each that may be open: most of them will be refused."""
_KEEPALIVE_S = 30
"""A connection without traffic is pinged this often, to find clients that have vanished."""

ReadCertificate = Callable[[], tuple[bytes, bytes]]
"""Returns the private key and the certificate chain in PEM, as they are now."""


class GrpcServer:
    """Serves the inference service, health and server reflection.

    Args:
        servicer: the methods of the inference service.
        front: what every call passes through.
        is_ready: whether requests would be served now.
        limits: see `GrpcLimits`.
        certificate: for TLS; None for plain text.
    """

    def __init__(
        self,
        servicer: InferenceServicer,
        front: Front,
        is_ready: Callable[[], bool],
        limits: GrpcLimits,
        certificate: ReadCertificate | None = None,
    ) -> None:
        self._front = front
        self._limits = limits
        self._certificate = certificate
        self._server: CallSource | None = None
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, front)
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(frozenset(SERVICES), is_ready), front)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(SERVICES), front
        )

    async def start(self, address: str) -> None:
        """Listen on ``host:port``, a port that is reserved for this gateway; its processes may share it.

        Raises:
            ConfigurationError: the port cannot be bound, or gRPC does not accept the certificate.
        """
        self._server = CallSource(self._front, self._front.methods, _options(self._limits))
        if self._certificate is None:
            port = self._server.add_insecure_port(address.encode())
        else:
            port = self._server.add_secure_port(address.encode(), _credentials(self._certificate))
        if not port:
            raise ConfigurationError(
                f"gRPC cannot listen on {address}: the address is in use, or gRPC does not accept the "
                "GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY."
            )
        await self._server.start()

    async def stop(self, drain_s: float, at_once: asyncio.Event) -> None:
        """Stop accepting, answer the calls under way for up to ``drain_s``, then cancel the rest.

        Args:
            drain_s: seconds.
            at_once: set it to end the drain early.
        """
        if self._server is None:
            return
        self._front.draining.set()
        # gRPC sends GOAWAY and cancels the calls that no handler has yet. So there should be none at that
        # moment, and no client should get a response before GOAWAY, or it would send its next call here.
        async with self._front.responses_held():
            stopping = asyncio.ensure_future(self._server.shutdown(drain_s))
            await asyncio.sleep(_GOAWAY_S)
        ends = asyncio.get_running_loop().time() + drain_s
        while self._front.calls and not at_once.is_set() and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(_DRAIN_POLL_S)
        # What remains are watchers of health and clients of reflection, or calls that took too long.
        await self._server.shutdown(None)
        await stopping


def _options(limits: GrpcLimits) -> list[tuple[str, int]]:
    """Return gRPC's channel arguments."""
    return [
        # The port is reserved by a socket of ours, so no other program can share it.
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_concurrent_streams", limits.max_streams),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        # Above these gRPC refuses calls by CANCELLED, at first at random, which no client repeats.
        ("grpc.server.max_pending_requests", _PENDING_SHARE * limits.max_streams),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_SHARE * limits.max_streams),
        # gRPC would decompress without a bound.
        ("grpc.per_message_decompression", 0),
        ("grpc.server_handshake_timeout_ms", int(1000 * limits.transfer_timeout_s)),
        ("grpc.max_connection_idle_ms", int(1000 * limits.keep_alive_timeout_s)),
        ("grpc.keepalive_time_ms", 1000 * _KEEPALIVE_S),
        ("grpc.keepalive_timeout_ms", int(1000 * limits.transfer_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000 * _PING_INTERVAL_S),
    ]


def _credentials(read: ReadCertificate) -> grpc.ServerCredentials:
    """Return credentials that follow the certificate when its files change."""
    in_use = read()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal in_use
        # Each handshake asks; another configuration, even an equal one, ends the resumption of sessions.
        now = read()
        if now == in_use:
            return None
        in_use = now
        return grpc.ssl_server_certificate_configuration([now])

    fetch: Any = changed  # which may return None for "as before"; the stubs do not know that
    return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([in_use]), fetch)
