"""The Open Inference Protocol, over HTTP and gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.access.admission import Admission
from gateway.access.credentials import ReloadableCredentials
from gateway.composition.inference import Inference
from gateway.inference_protocol.infer import ModelInfer
from gateway.inference_protocol.models import ModelDirectory
from gateway.pipeline.observer import RequestObserver
from gateway.pipeline.predict import PredictCall
from gateway.processes.open_files import grpc_connection_limit
from gateway.settings import MESSAGE_OVERHEAD_BYTES, Settings
from gateway.telemetry.client_address import ClientAddress
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.inference_protocol.grpc.server import GrpcServer


@dataclass(frozen=True, slots=True)
class InferenceProtocol:
    """The Open Inference Protocol, as its HTTP and its gRPC front share it."""

    models: ModelDirectory
    infer: ModelInfer


def compose_protocol(settings: Settings, inference: Inference, predict: PredictCall) -> InferenceProtocol:
    """Put together what both transports share."""
    models = ModelDirectory(inference.catalogue, inference.health, settings.max_batch_texts)
    return InferenceProtocol(models, ModelInfer(predict, models))


def compose_grpc(
    settings: Settings,
    inference: Inference,
    protocol: InferenceProtocol,
    admission: Admission,
    observer: RequestObserver,
    metrics: Metrics,
    credentials: ReloadableCredentials,
    client_address: ClientAddress | None,
) -> GrpcServer | None:
    """Put the gRPC front together; None without a port for it."""
    if settings.grpc_port is None:
        return None
    # A gateway without the port must not depend on names of gRPC that are not public.
    from gateway.inference_protocol.grpc.front import Front  # noqa: PLC0415
    from gateway.inference_protocol.grpc.limits import GrpcLimits  # noqa: PLC0415
    from gateway.inference_protocol.grpc.server import GrpcServer  # noqa: PLC0415
    from gateway.inference_protocol.grpc.servicer import InferenceServicer  # noqa: PLC0415

    limits = GrpcLimits(
        max_message_bytes=settings.max_body_bytes + MESSAGE_OVERHEAD_BYTES,
        max_streams=settings.grpc_max_streams,
        max_connections=grpc_connections(settings),
        transfer_timeout_s=settings.transfer_timeout_s,
        keep_alive_timeout_s=settings.keep_alive_timeout_s,
    )
    front = Front(
        credentials.tokens,
        admission,
        observer,
        metrics.grpc_requests(),
        client_address,
        limits,
    )
    is_ready = inference.monitor.is_ready
    certificate = credentials.certificate
    return GrpcServer(
        InferenceServicer(protocol.infer, protocol.models, is_ready),
        front,
        is_ready,
        limits,
        None if certificate is None else lambda: certificate.pem,
    )


def grpc_connections(settings: Settings) -> int:
    """How many connections the gRPC front keeps at most."""
    return 0 if settings.grpc_port is None else grpc_connection_limit(settings.grpc_max_streams)
