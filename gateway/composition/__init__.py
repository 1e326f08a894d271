"""The composition root: settings → backend → app.

`compose` builds the parts in the order in which they depend on each other, and registers the gauges that
read them last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.access.admission import Admission
from gateway.access.certificate import Certificate
from gateway.access.credentials import ReloadableCredentials
from gateway.access.rate_limit import RateLimit
from gateway.access.rate_store import LimitsStore, RateStore, RedisStore
from gateway.access.tokens import TokenTable
from gateway.addresses import networks
from gateway.api.ai_gateway.queries import GatewayQueries
from gateway.api.ai_gateway.universal import Universal
from gateway.api.app import App
from gateway.api.binding.handlers import Binding
from gateway.api.models import ModelQueries
from gateway.api.operations import Operations
from gateway.api.predict import PredictBody
from gateway.api.reports import Reports
from gateway.api.request_body import BodyReader
from gateway.api.router import Route
from gateway.api.routes import (
    API_PREFIX,
    ai_gateway_routes,
    operations_routes,
    page_routes,
    query_routes,
    run_routes,
)
from gateway.api.run import RunModel
from gateway.api.verify_token import VerifyToken
from gateway.composition.batches import Batches, compose_batches, max_queued_batch_texts
from gateway.composition.inference import Inference, compose_inference
from gateway.composition.protocol import InferenceProtocol, compose_grpc, compose_protocol, grpc_connections
from gateway.composition.shadow import compose_shadow
from gateway.domain.monitor import Monitor
from gateway.domain.requests import InputLimits
from gateway.inference_protocol.http.routes import protocol_routes
from gateway.pipeline.observer import RequestObserver
from gateway.pipeline.predict import PredictCall, RequestLimits
from gateway.pipeline.queued import RunCall
from gateway.processes.open_files import OpenFiles, room_for_connections
from gateway.processes.tasks import running_beside
from gateway.rerank_apis.model_choice import ModelChoice
from gateway.rerank_apis.routes import rerank_routes
from gateway.server.connection_limiter import ConnectionLimiter
from gateway.settings import ConfigurationError, Settings
from gateway.shadow.mirror import Mirror
from gateway.telemetry import gauges
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.client_address import ClientAddress
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.shared_metrics import SharedMetrics

if TYPE_CHECKING:
    from gateway.inference_protocol.grpc.server import GrpcServer
    from gateway.telemetry.tracing import Tracing


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
    batches: Batches | None
    """None if all batches are answered at once."""
    mirror: Mirror | None
    """None if no second model is asked."""

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
            async with running_beside(tasks), self._running_batches(), self._running_mirror():
                yield
        finally:
            await self.inference.close()
            await self.rate.close()
            self.access_log.flush()
            if self.tracing is not None:
                await asyncio.to_thread(self.tracing.close)

    def _running_batches(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self.batches is None else self.batches.running()

    def _running_mirror(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self.mirror is None else self.mirror.running()

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
    inference = compose_inference(settings, metrics, tracing)
    admission = Admission(settings.max_requests_in_flight)
    rate_store = _rate_store(settings, metrics)
    rate = RateLimit(settings.requests_per_minute, lambda: credentials.tokens.accounts, rate_store)
    limiter = ConnectionLimiter(
        room_for_connections(settings.max_connections, grpc_connections(settings)),
        metrics.limiter_events(),
        settings.max_buffered_bytes,
    )
    access_log = AccessLog(settings.log_level, settings.access_log_share, settings.log_format)
    observer = RequestObserver(metrics, access_log, tracing.begin if tracing is not None else None)
    limits = RequestLimits(settings.request_timeout_s, _input_limits(settings))
    batches = compose_batches(settings, inference, admission, rate, metrics)
    mirror = compose_shadow(settings, inference, admission, metrics)
    observers = () if mirror is None else (mirror.offer,)
    predict = PredictCall(inference.predictor, admission, rate, metrics, limits, *observers)
    protocol = compose_protocol(settings, inference, predict)
    client_address = _client_address(settings)
    app = App(
        _routes(
            settings,
            inference,
            admission,
            RunCall(predict, rate, None if batches is None else batches.queue),
            protocol,
            metrics,
            VerifyToken(credentials.tokens),
        ),
        credentials.tokens,
        observer,
        binding_without_token=settings.binding_without_token,
        client_address=client_address,
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
        batches=batches,
        mirror=mirror,
        grpc=compose_grpc(
            settings, inference, protocol, admission, observer, metrics, credentials, client_address
        ),
    )


def _input_limits(settings: Settings) -> InputLimits:
    # A permitted request has to fit: each context takes a place.
    return InputLimits(
        settings.max_batch_texts,
        min(settings.max_contexts, settings.max_requests_in_flight),
        max_queued_batch_texts(settings),
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


def _routes(
    settings: Settings,
    inference: Inference,
    admission: Admission,
    run: RunCall,
    protocol: InferenceProtocol,
    metrics: Metrics,
    verify: VerifyToken,
) -> tuple[Route, ...]:
    bodies = BodyReader(admission, settings.max_body_bytes, settings.max_requests_in_flight)
    predict = PredictBody(
        run,
        inference.catalogue,
        bodies,
        settings.max_body_bytes,
        settings.max_queued_body_bytes,
        settings.long_texts,
    )
    reports = Reports(settings.reports_folder, inference.catalogue.find)
    queries = ModelQueries(inference.catalogue, predict.limits, reports)
    universal = Universal(predict, settings.result_shape)
    scheme = "http" if settings.tls_certificate is None else "https"
    binding = Binding(predict, queries.search, universal, GatewayQueries(scheme))
    run_model = RunModel(predict, settings.result_shape)
    return (
        # First: ai/run/{model} would take the proxy's path for a model.
        *binding.routes(API_PREFIX),
        *run_routes(run_model),
        *ai_gateway_routes(run_model, universal),
        *query_routes(queries, reports, verify),
        # First: /v2/{path} would take /v2/rerank.
        *rerank_routes(
            predict, ModelChoice(inference.catalogue), inference.monitor, settings.max_requests_in_flight
        ),
        *protocol_routes(
            protocol.models, protocol.infer, inference.monitor, bodies, settings.request_timeout_s
        ),
        *operations_routes(Operations(inference.monitor, metrics)),
        *page_routes(settings.playground),
    )


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
