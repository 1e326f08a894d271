"""The composition root: settings → backend → app.

`compose` builds the parts in the order in which they depend on each other, and registers the gauges that
read them last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.access.admission import Admission
from gateway.access.certificate import Certificate
from gateway.access.credentials import ReloadableCredentials
from gateway.access.rate_limit import RateLimit
from gateway.access.rate_store import LimitsStore, RateStore, RedisStore
from gateway.access.tokens import TokenTable
from gateway.addresses import networks
from gateway.api.app import App
from gateway.api.binding.handlers import Binding
from gateway.api.classify import ClassifyBody
from gateway.api.models import ModelQueries
from gateway.api.operations import Operations
from gateway.api.request_body import BodyReader
from gateway.api.router import Route
from gateway.api.routes import API_PREFIX, operations_routes, page_routes, query_routes, run_routes
from gateway.api.run import RunModel
from gateway.api.verify_token import VerifyToken
from gateway.domain.cache import AnswerCache
from gateway.domain.catalogue import Catalogue, Ensemble, Model
from gateway.domain.coalescing.coalescer import Coalescer
from gateway.domain.coalescing.queue import CoalescingLimits
from gateway.domain.health import ModelHealth
from gateway.domain.monitor import Monitor, MonitorTimes
from gateway.domain.service import Classifier
from gateway.inference_protocol.http.routes import protocol_routes
from gateway.inference_protocol.infer import ModelInfer
from gateway.inference_protocol.models import ModelDirectory
from gateway.pipeline.classify import ClassifyCall, RequestLimits
from gateway.pipeline.observer import RequestObserver
from gateway.processes.open_files import OpenFiles, grpc_connection_limit, room_for_connections
from gateway.processes.tasks import running_beside
from gateway.server.connection_limiter import ConnectionLimiter
from gateway.settings import MESSAGE_OVERHEAD_BYTES, ConfigurationError, Settings
from gateway.telemetry import gauges
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.client_address import ClientAddress
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.shared_metrics import SharedMetrics
from gateway.triton.client import TritonClient, TritonOptions
from gateway.triton.handover import HandoverBackend

if TYPE_CHECKING:
    from gateway.inference_protocol.grpc.server import GrpcServer
    from gateway.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Inference:
    """From a text to its scores, and what is known of the models."""

    backend: HandoverBackend
    coalescer: Coalescer
    cache: AnswerCache | None
    catalogue: Catalogue
    health: ModelHealth
    monitor: Monitor

    @property
    def classifier(self) -> Classifier:
        """The use case, over the cache if there is one."""
        return Classifier(self.coalescer if self.cache is None else self.cache)

    async def hand_over(self, url: str, drain_s: float) -> None:
        """Send new calls to another Triton; see `HandoverBackend.hand_over`."""
        await self.backend.hand_over(url, self._replace_catalogue, drain_s)

    def _replace_catalogue(self, found: Sequence[Ensemble]) -> None:
        self.catalogue.replace(found)
        for model in self.catalogue:
            self.health.answered(model)  # a handover begins after the new Triton has answered canaries

    async def close(self) -> None:
        """Cancel the calls under way and close the channel to Triton."""
        await self.coalescer.close()
        await self.backend.close()


@dataclass(frozen=True, slots=True)
class InferenceProtocol:
    """The Open Inference Protocol, as its HTTP and its gRPC front share it."""

    models: ModelDirectory
    infer: ModelInfer


@dataclass(frozen=True, slots=True)
class Gateway:
    """A composed gateway: what the server runs, and what else holds resources."""

    settings: Settings
    app: App
    monitor: Monitor
    limiter: ConnectionLimiter
    credentials: ReloadableCredentials
    metrics: Metrics
    inference: Inference
    rate: RateLimit
    access_log: AccessLog
    tracing: Tracing | None
    grpc: GrpcServer | None
    """The gRPC front; None without a port for it."""

    @property
    def certificate(self) -> Certificate | None:
        """The certificate to listen with; None without TLS."""
        return self.credentials.certificate

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the channel to Triton, and watch models, tokens and the certificate in the background."""
        await self.inference.backend.open()
        tasks = (self.monitor.run(), self.metrics.publish(), *self.credentials.tasks())
        try:
            async with running_beside(tasks):
                yield
        finally:
            await self.inference.close()
            await self.rate.close()
            self.access_log.flush()
            if self.tracing is not None:
                await asyncio.to_thread(self.tracing.close)

    def triton_restarted(self, reason: str) -> None:
        """Count a restart of Triton after a fault; see `TritonEvents`."""
        self.metrics.triton_restarted(reason)

    async def hand_over(self, url: str) -> None:
        """Send new calls to another Triton; see `TritonEvents`."""
        await self.inference.hand_over(url, self.settings.request_timeout_s)


def build_app(settings: Settings) -> App:
    """Build the application alone, for tools that read its routes; `gateway.main.serve` runs one.

    Raises:
        ConfigurationError: there is no token, or one is malformed.
    """
    return compose(settings).app


def compose(
    settings: Settings, shared: SharedMetrics | None = None, known: TokenTable | None = None
) -> Gateway:
    """Put a gateway together; nothing is opened yet.

    Args:
        settings: the settings.
        shared: where several workers add their metrics up.
        known: tokens that are in force already; see `ReloadableCredentials`.

    Raises:
        ConfigurationError: the settings make no gateway.
    """
    credentials = ReloadableCredentials(settings, known)
    metrics = Metrics(shared)
    tracing = _tracing(settings)
    inference = _inference(settings, metrics, tracing)
    admission = Admission(settings.max_requests_in_flight)
    rate_store = _rate_store(settings, metrics)
    rate = RateLimit(settings.requests_per_minute, lambda: credentials.tokens.accounts, rate_store)
    limiter = ConnectionLimiter(
        room_for_connections(settings.max_connections, _grpc_connections(settings)),
        metrics.limiter_events(),
        settings.max_buffered_bytes,
    )
    access_log = AccessLog(settings.log_level, settings.access_log_share, settings.log_format)
    observer = RequestObserver(metrics, access_log, tracing.begin if tracing is not None else None)
    limits = RequestLimits(settings.request_timeout_s, settings.max_batch_texts)
    classify = ClassifyCall(inference.classifier, admission, rate, metrics, limits)
    protocol = _protocol(settings, inference, classify)
    app = App(
        _routes(settings, inference, admission, classify, protocol, metrics, VerifyToken(credentials.tokens)),
        credentials.tokens,
        observer,
        binding_without_token=settings.binding_without_token,
        client_address=_client_address(settings),
    )
    _register_gauges(metrics, settings, inference, admission, limiter)
    return Gateway(
        settings=settings,
        app=app,
        monitor=inference.monitor,
        limiter=limiter,
        credentials=credentials,
        metrics=metrics,
        inference=inference,
        rate=rate,
        access_log=access_log,
        tracing=tracing,
        grpc=_grpc(settings, inference, protocol, admission, observer, metrics, credentials),
    )


def _inference(settings: Settings, metrics: Metrics, tracing: Tracing | None) -> Inference:
    catalogue = Catalogue()
    health = ModelHealth(settings.canary_max_age_s)
    backend = _backend(settings, metrics, tracing, catalogue)
    coalescer = Coalescer(
        backend,
        CoalescingLimits(
            settings.call_slots, settings.max_call_texts, settings.call_length_ratio, settings.max_queue_s
        ),
        observe=metrics.call_sent,
        answered=health.answered,
        unavailable=health.unavailable,
        tracer=tracing,
    )
    cache = None
    if settings.cache_bytes:
        counters = metrics.cache_counters()
        cache = AnswerCache(coalescer, settings.cache_bytes, counters.looked_up, counters.evicted)
        catalogue.on_replace(cache.serve)
    times = MonitorTimes(
        refresh_interval_s=settings.refresh_interval_s,
        retry_interval_s=settings.retry_interval_s,
        canary_timeout_s=settings.canary_timeout_s,
        request_timeout_s=settings.request_timeout_s,
        canaries_per_s=settings.canaries_per_s,
    )
    monitor = Monitor(backend, coalescer, catalogue, health, times)
    return Inference(backend, coalescer, cache, catalogue, health, monitor)


def _backend(
    settings: Settings, metrics: Metrics, tracing: Tracing | None, catalogue: Catalogue
) -> HandoverBackend:
    options = _triton_options(settings)
    call_metadata = tracing.metadata if tracing is not None else None

    def called(model: Model, outcome: str, seconds: float) -> None:
        metrics.triton_called(outcome, seconds)

    def client(url: str) -> TritonClient:
        return TritonClient(replace(options, url=url), called, call_metadata)

    return HandoverBackend(client, options.url, lambda: catalogue)


def _triton_options(settings: Settings) -> TritonOptions:
    key: tuple[str, str] | None = None
    if settings.triton_metadata_key is not None:
        name, _, secret = settings.triton_metadata_key.get_secret_value().partition("=")
        key = (name, secret)
    return TritonOptions(
        url=settings.triton_url,
        max_message_bytes=settings.triton_max_message_bytes,
        control_timeout_s=settings.triton_control_timeout_s,
        restricted_key=key,
    )


def _tracing(settings: Settings) -> Tracing | None:
    """Import OpenTelemetry if spans have a destination.

    Raises:
        ConfigurationError: the packages are missing.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        from gateway.telemetry.tracing import Tracing  # noqa: PLC0415 (most gateways do without, and without the extra)
    except ImportError as error:
        raise ConfigurationError(
            "GATEWAY_OTLP_ENDPOINT needs OpenTelemetry; install it: .venv/bin/pip install -e '.[otel]'"
        ) from error
    return Tracing(settings.otlp_endpoint, settings.trace_share)


def _client_address(settings: Settings) -> ClientAddress | None:
    if not settings.log_client_address:
        return None
    return ClientAddress(networks(settings.trusted_proxies) if settings.trusted_proxies else ())


def _rate_store(settings: Settings, metrics: Metrics) -> RateStore:
    if settings.rate_redis_url is None:
        return LimitsStore()
    return RedisStore(settings.rate_redis_url.get_secret_value(), metrics.rate_store_failures())


def _protocol(settings: Settings, inference: Inference, classify: ClassifyCall) -> InferenceProtocol:
    models = ModelDirectory(inference.catalogue, inference.health, settings.max_batch_texts)
    return InferenceProtocol(models, ModelInfer(classify, models))


def _routes(
    settings: Settings,
    inference: Inference,
    admission: Admission,
    classify_call: ClassifyCall,
    protocol: InferenceProtocol,
    metrics: Metrics,
    verify: VerifyToken,
) -> tuple[Route, ...]:
    bodies = BodyReader(admission, settings.max_body_bytes, settings.max_requests_in_flight)
    classify = ClassifyBody(classify_call, inference.catalogue, bodies)
    queries = ModelQueries(inference.catalogue)
    binding = Binding(classify, queries.search)
    return (
        # First: ai/run/{model} would take the proxy's path for a model.
        *binding.routes(API_PREFIX),
        *run_routes(RunModel(classify, settings.result_shape)),
        *query_routes(queries, verify),
        *protocol_routes(
            protocol.models, protocol.infer, inference.monitor, bodies, settings.request_timeout_s
        ),
        *operations_routes(Operations(inference.monitor, metrics)),
        *page_routes(settings.playground),
    )


def _grpc(
    settings: Settings,
    inference: Inference,
    protocol: InferenceProtocol,
    admission: Admission,
    observer: RequestObserver,
    metrics: Metrics,
    credentials: ReloadableCredentials,
) -> GrpcServer | None:
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
        max_connections=_grpc_connections(settings),
        transfer_timeout_s=settings.transfer_timeout_s,
        keep_alive_timeout_s=settings.keep_alive_timeout_s,
    )
    front = Front(
        credentials.tokens,
        admission,
        observer,
        metrics.grpc_requests(),
        _client_address(settings),
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


def _grpc_connections(settings: Settings) -> int:
    return 0 if settings.grpc_port is None else grpc_connection_limit(settings.grpc_max_streams)


def _register_gauges(
    metrics: Metrics,
    settings: Settings,
    inference: Inference,
    admission: Admission,
    limiter: ConnectionLimiter,
) -> None:
    coalescer, cache = inference.coalescer, inference.cache
    metrics.register_gauges(
        {
            gauges.READY: inference.monitor.is_ready,
            gauges.IN_FLIGHT: lambda: admission.in_flight,
            gauges.IN_FLIGHT_LIMIT: lambda: settings.max_requests_in_flight,
            gauges.QUEUED_TEXTS: lambda: coalescer.waiting,
            gauges.CALLS: lambda: coalescer.calls,
            gauges.CALLS_OVERDUE: lambda: coalescer.overdue,
            gauges.CONNECTIONS: lambda: len(limiter),
            gauges.OPEN_FILES: OpenFiles().share,
        }
    )
    if cache is not None:
        metrics.register_gauges(
            {gauges.CACHE_BYTES: lambda: cache.size_bytes, gauges.CACHE_ENTRIES: lambda: len(cache)}
        )
