"""The composition root: settings → backend → app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.access.admission import Admission
from gateway.access.certificate import Certificate
from gateway.access.credentials import ReloadableCredentials
from gateway.access.rate_limit import RateLimit
from gateway.access.rate_store import OwnStore, RateStore, RedisStore
from gateway.access.tokens import TokenTable
from gateway.api.app import App
from gateway.api.binding.handlers import Binding
from gateway.api.classify import ClassifyCall, RunLimits
from gateway.api.models import ModelQueries
from gateway.api.operations import Operations
from gateway.api.request_body import BodyReader
from gateway.api.router import Route
from gateway.api.routes import API_PREFIX, operations_routes, page_routes, query_routes, run_routes
from gateway.api.run import RunModel
from gateway.api.verify_token import VerifyToken
from gateway.domain.backend import AnswerSource
from gateway.domain.cache import AnswerCache
from gateway.domain.catalogue import Catalogue, Ensemble, Model
from gateway.domain.coalesce import Coalescer
from gateway.domain.monitor import Monitor, MonitorTimes
from gateway.domain.queue import CoalescingLimits
from gateway.domain.service import Classifier
from gateway.processes.open_files import OpenFiles, room_for_connections
from gateway.processes.tasks import running_beside
from gateway.server.connection_limiter import ConnectionLimiter
from gateway.settings import ConfigurationError, Settings
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.shared_metrics import SharedMetrics
from gateway.triton.client import TritonClient, TritonOptions
from gateway.triton.moving import MovingBackend

if TYPE_CHECKING:
    from gateway.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the server needs to know of a composed gateway."""

    app: App
    monitor: Monitor
    limiter: ConnectionLimiter
    certificate: Certificate | None
    running: Callable[[], AbstractAsyncContextManager[None]]
    """Opens the channel to Triton and looks at models, tokens and the certificate in the background."""
    metrics: Metrics
    move: Callable[[str], Coroutine[None, None, None]]
    """See `Receiver`, as for `triton_restarted`."""

    def triton_restarted(self, reason: str) -> None:
        """Count a start of Triton after a fault."""
        self.metrics.triton_restarted(reason)


@dataclass(frozen=True, slots=True)
class _Inference:
    """From a text to its scores, and what is known of the models."""

    backend: MovingBackend
    coalescer: Coalescer
    catalogue: Catalogue
    classifier: Classifier
    monitor: Monitor

    async def move(self, url: str, drain_s: float) -> None:
        """Go over to another Triton; see `MovingBackend.move`."""
        await self.backend.move(url, self._arrived, drain_s)

    def _arrived(self, found: Sequence[Ensemble]) -> None:
        self.catalogue.replace(found)
        for model in self.catalogue:
            self.monitor.answered(model)  # nobody moves to a Triton that has not answered a canary

    async def close(self) -> None:
        await self.coalescer.close()
        await self.backend.close()


def build_app(settings: Settings) -> App:
    """Build the application, for who wants to know its routes; `gateway.main.serve` runs one.

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
        known: what they know of tokens; see `ReloadableCredentials`.

    Raises:
        ConfigurationError: the settings make no gateway.
    """
    credentials = ReloadableCredentials(settings, known)
    admission = Admission(settings.max_requests_in_flight)
    metrics = Metrics(
        in_flight=lambda: admission.in_flight,
        ready=lambda: float(inference.monitor.why_not_ready() is None),
        shared=shared,
    )
    tracing = _tracing(settings)
    inference = _inference(settings, metrics, tracing)
    limiter = ConnectionLimiter(
        room_for_connections(settings.max_connections),
        metrics.watch_connections(lambda: len(limiter)),
        settings.max_buffered_bytes,
    )
    metrics.watch_open_files(OpenFiles().share)
    rate = RateLimit(
        settings.requests_per_minute, lambda: credentials.tokens.accounts, _rate_store(settings, metrics)
    )
    access_log = AccessLog(settings.log_level, settings.access_log_share, settings.log_format)
    app = App(
        _routes(settings, inference, admission, rate, metrics, VerifyToken(credentials.tokens)),
        credentials.tokens,
        metrics,
        access_log,
        binding_without_token=settings.binding_without_token,
        trace=tracing.begin if tracing is not None else None,
    )

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await inference.backend.open()
        works = (inference.monitor.run(), metrics.publish(), *credentials.tasks())
        try:
            async with running_beside(works):
                yield
        finally:
            await inference.close()
            await rate.close()
            access_log.flush()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    async def move(url: str) -> None:
        await inference.move(url, settings.request_timeout_s)

    return Gateway(app, inference.monitor, limiter, credentials.certificate, running, metrics, move)


def _inference(settings: Settings, metrics: Metrics, tracing: Tracing | None) -> _Inference:
    def triton_called(model: Model, outcome: str, seconds: float) -> None:
        metrics.triton_called(outcome, seconds)

    def answered(model: Model) -> None:
        monitor.answered(model)

    def unavailable(model: Model) -> None:
        monitor.unavailable(model)

    options = _triton_options(settings)
    context = tracing.metadata if tracing is not None else None
    backend = MovingBackend(
        lambda url: TritonClient(replace(options, url=url), triton_called, context),
        options.url,
        lambda: catalogue,
    )
    coalescer = Coalescer(
        backend,
        CoalescingLimits(
            settings.call_slots, settings.max_call_texts, settings.call_length_ratio, settings.max_queue_s
        ),
        metrics.call_sent,
        answered,
        unavailable,
        tracing,
    )
    metrics.watch_load(
        settings.max_requests_in_flight,
        waiting=lambda: coalescer.waiting,
        calls=lambda: coalescer.calls,
        overdue=lambda: coalescer.overdue,
    )
    catalogue, classifier = _answering(coalescer, settings.cache_bytes, metrics)
    times = MonitorTimes(
        refresh_interval_s=settings.refresh_interval_s,
        retry_interval_s=settings.retry_interval_s,
        canary_timeout_s=settings.canary_timeout_s,
        canary_max_age_s=settings.canary_max_age_s,
        request_timeout_s=settings.request_timeout_s,
        canaries_per_s=settings.canaries_per_s,
    )
    monitor = Monitor(backend, coalescer, catalogue, times)
    return _Inference(backend, coalescer, catalogue, classifier, monitor)


def _routes(
    settings: Settings,
    inference: _Inference,
    admission: Admission,
    rate: RateLimit,
    metrics: Metrics,
    verify: VerifyToken,
) -> tuple[Route, ...]:
    catalogue, classifier = inference.catalogue, inference.classifier
    bodies = BodyReader(admission, settings.max_body_bytes, settings.max_requests_in_flight)
    limits = RunLimits(settings.request_timeout_s, settings.result_shape, settings.max_batch_texts)
    classify = ClassifyCall(catalogue, classifier, bodies, admission, rate, metrics, limits)
    queries = ModelQueries(catalogue)
    binding = Binding(classify, queries.search)
    return (
        # First: ai/run/{model} would take the proxy's path for a model.
        *binding.routes(API_PREFIX),
        *run_routes(RunModel(classify)),
        *query_routes(queries, verify),
        *operations_routes(Operations(inference.monitor, metrics)),
        *page_routes(settings.playground),
    )


def _tracing(settings: Settings) -> Tracing | None:
    """Import what makes spans, if they are to go anywhere.

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


def _rate_store(settings: Settings, metrics: Metrics) -> RateStore:
    if settings.rate_redis_url is None:
        return OwnStore()
    return RedisStore(settings.rate_redis_url.get_secret_value(), metrics.watch_rate_store())


def _answering(source: AnswerSource, cache_bytes: int, metrics: Metrics) -> tuple[Catalogue, Classifier]:
    """Put the answer cache between the use case and ``source``, if there is to be one."""
    if not cache_bytes:
        return Catalogue(), Classifier(source)
    counted = metrics.watch_cache(size=lambda: cache.size_bytes, entries=lambda: len(cache))
    cache = AnswerCache(source, cache_bytes, counted.looked_up, counted.evicted)
    return Catalogue(cache.serve), Classifier(cache)


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
