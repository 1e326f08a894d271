"""Where the gateway listens, its processes, its connections, and how it stops."""

from __future__ import annotations

from pydantic import BaseModel, Field, field_validator

from gateway.settings.kinds import Bytes, Seconds


class ServerSettings(BaseModel):
    """Where the gateway listens, its processes, its connections, and how it stops."""

    host: str = Field(
        "127.0.0.1", min_length=1, description="Name or IP address to listen on; Unix sockets are not served."
    )
    port: int = Field(8787, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="TCP port for gRPC clients of the Open Inference Protocol (docs/clients.md); 0 takes a "
        "free one. Unset: no gRPC. With a wildcard GATEWAY_HOST it listens on IPv4 and IPv6.",
    )
    grpc_max_streams: int = Field(
        1024,
        gt=0,
        description="gRPC calls and streams open at once in each worker; one more gets RESOURCE_EXHAUSTED.",
    )
    workers: int = Field(
        1,
        gt=0,
        le=256,
        description="Processes that share the port, to use more cores. Each has its own connections to "
        "Triton, its own GATEWAY_MAX_REQUESTS_IN_FLIGHT and its own GATEWAY_CALL_SLOTS.",
    )
    worker_timeout_s: Seconds = Field(
        15.0,
        description="With several workers: the supervisor asks each worker for a heartbeat once a second, "
        "and kills and replaces a worker that has not answered for this long.",
    )
    max_connections: int = Field(
        0,
        ge=0,
        description="Connections open at once in each worker. A new one above it replaces the connection "
        "that has been idle longest. 0: as many as the limit of open files allows, at most 16384.",
    )
    max_buffered_bytes: Bytes = Field(
        128 * 1024 * 1024,
        description="Memory in each worker for received bytes of unanswered requests: unfinished heads, "
        "bodies, pipelined requests. Above it the oldest unfinished heads are closed; if there are none, "
        "429, code 3040.",
    )
    transfer_timeout_s: Seconds = Field(
        10.0,
        description="Time limit for a TLS handshake, for the head of a request, and for a client that reads "
        "nothing of its answer. Bodies have GATEWAY_REQUEST_TIMEOUT_S.",
    )
    keep_alive_timeout_s: int = Field(
        75,
        gt=0,
        description="Time that an idle connection stays open. Keep it above the idle timeout of a load "
        "balancer in front.",
    )
    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Pause at shutdown between the end of readiness and the closing of the port, so that "
        "load balancers notice.",
    )
    drain_timeout_s: int = Field(
        10,
        gt=0,
        description="Time that requests in flight get to finish at shutdown; those that take longer, up to "
        "GATEWAY_REQUEST_TIMEOUT_S, get 503.",
    )
    drain_keep_alive_s: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Time that idle connections stay open at shutdown after the port has closed, because a "
        "proxy may be about to use one. At most GATEWAY_DRAIN_TIMEOUT_S; without idle connections there is "
        "no wait.",
    )

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        if host.startswith("unix:") or "/" in host:
            raise ValueError(
                "must be a name or an IP address, because Unix sockets are not served; for a proxy on this "
                "machine use 127.0.0.1, which no other machine reaches"
            )
        return host
