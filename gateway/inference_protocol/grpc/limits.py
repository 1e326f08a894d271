"""Bounds of the gRPC server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Bounds of connections and calls; see the settings of the same names."""

    max_message_bytes: int
    """Before and after decompression."""
    max_streams: int
    max_connections: int
    transfer_timeout_s: float
    keep_alive_timeout_s: float
