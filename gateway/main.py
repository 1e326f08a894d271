"""The composition root: settings → backend → app, and the server around it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import uvloop

from gateway.access_log import AccessLog
from gateway.descriptors import room_for_connections
from gateway.domain.cache import AnswerCache
from gateway.domain.catalogue import Catalogue, Ensemble, Model
from gateway.domain.coalesce import AnswerSource, Coalescer, CoalescingLimits
from gateway.domain.monitor import Monitor, MonitorTimes
from gateway.domain.service import Classifier
from gateway.http.app import App
from gateway.http.batch import BatchRunner
from gateway.http.binding import Binding
from gateway.http.body import Intake
from gateway.http.connection import Patience
from gateway.http.crowd import Crowd
from gateway.http.limits import Admission
from gateway.http.metrics import Metrics
from gateway.http.models import ModelQueries
from gateway.http.ops import Operations
from gateway.http.rate import RateLimit
from gateway.http.rate_store import OwnStore, RateStore, RedisStore
from gateway.http.routes import API_PREFIX, operations_routes, page_routes, query_routes, run_routes
from gateway.http.run import RunLimits, RunModel
from gateway.http.server import Server
from gateway.http.shared_metrics import SharedMetrics
from gateway.http.verify import VerifyToken
from gateway.kept_up import KeptUp, check_certificate, check_tokens
from gateway.logs import configure_logging
from gateway.serving import base_url, bind, closing_all, signals_set
from gateway.settings import ConfigurationError, Settings, unknown_variables
from gateway.tls import Certificate
from gateway.triton.client import TritonClient, TritonOptions
from gateway.triton.moving import MovingBackend
from gateway.upstream import Upstream
from gateway.workers import Post, Supervisor, obeying, say

if TYPE_CHECKING:
    from gateway.tracing import Tracing

_log = logging.getLogger("tritonflare.gateway")

_REPLACEMENT_WAITS_S = 5.0


@dataclass(frozen=True, slots=True)
class _Gateway:
    """What the server needs to know of a composed gateway."""

    app: App
    monitor: Monitor
    crowd: Crowd
    certificate: Certificate | None
    running: Callable[[], AbstractAsyncContextManager[None]]
    """Opens the channel to Triton and looks at models, tokens and the certificate in the background."""
    metrics: Metrics
    move: Callable[[str], Coroutine[None, None, None]]
    """See `Receiver`, as for `triton_restarted`."""

    def triton_restarted(self, reason: str) -> None:
        self.metrics.triton_restarted(reason)


def build_app(settings: Settings) -> App:
    """Build the application, for who wants to know its routes; `serve` runs one.

    Raises:
        ConfigurationError: there is no token, or one is malformed.
    """
    return _compose(settings).app


def _compose(settings: Settings, shared: SharedMetrics | None = None) -> _Gateway:
    kept_up = KeptUp(settings)
    tokens = kept_up.tokens
    admission = Admission(settings.max_requests_in_flight)
    metrics = Metrics(
        in_flight=lambda: admission.in_flight,
        ready=lambda: float(monitor.why_not_ready() is None),
        shared=shared,
    )

    def triton_called(model: Model, outcome: str, seconds: float) -> None:
        metrics.triton_called(outcome, seconds)
        if outcome == "ok":
            monitor.answered(model)

    tracing = _tracing(settings)
    options = _triton_options(settings)
    context = tracing.metadata if tracing is not None else None
    backend = MovingBackend(
        lambda url: TritonClient(replace(options, url=url), triton_called, context),
        options.url,
        lambda: catalogue,
    )
    coalescer = Coalescer(
        backend if tracing is None else tracing.backend(backend),
        CoalescingLimits(
            settings.call_slots, settings.max_call_texts, settings.call_length_ratio, settings.max_queue_s
        ),
        metrics.call_sent,
    )
    metrics.watch_load(
        settings.max_requests_in_flight, waiting=lambda: coalescer.waiting, calls=lambda: coalescer.calls
    )
    source = coalescer if tracing is None else tracing.source(coalescer)
    catalogue, classifier = _answering(source, settings.cache_bytes, metrics)
    times = MonitorTimes(
        refresh_interval_s=settings.refresh_interval_s,
        retry_interval_s=settings.retry_interval_s,
        canary_timeout_s=settings.canary_timeout_s,
        canary_max_age_s=settings.canary_max_age_s,
    )
    monitor = Monitor(backend, catalogue, times)
    crowd = Crowd(
        room_for_connections(settings.max_connections), metrics.watch_connections(lambda: len(crowd))
    )
    rate = RateLimit(settings.requests_per_minute, lambda: tokens.accounts, _rate_store(settings, metrics))
    intake = Intake(admission, settings.max_body_bytes, settings.max_requests_in_flight)
    limits = RunLimits(settings.request_timeout_s, settings.result_shape, settings.max_batch_texts)
    batches = BatchRunner(classifier, admission, rate, metrics)
    run_model = RunModel(catalogue, classifier, batches, intake, admission, metrics, limits, rate)
    queries = ModelQueries(catalogue)
    binding = Binding(
        catalogue, classifier, batches, intake, admission, metrics, limits, rate, queries.search
    )
    routes = (
        # First: ai/run/{model} would take the proxy's path for a model.
        *binding.routes(API_PREFIX),
        *run_routes(run_model),
        *query_routes(queries, VerifyToken(tokens)),
        *operations_routes(Operations(monitor, metrics)),
        *page_routes(settings.playground),
    )

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await backend.open()
        works = (monitor.run(), metrics.publish(), *kept_up.works())
        watching = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await coalescer.close()
            await backend.close()
            await rate.close()
            access_log.flush()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    def arrived(found: Sequence[Ensemble]) -> None:
        catalogue.replace(found)
        for model in catalogue:
            monitor.answered(model)  # nobody moves to a Triton that has not answered a canary

    async def move(url: str) -> None:
        await backend.move(url, arrived, settings.request_timeout_s)

    access_log = AccessLog(settings.log_level, settings.access_log_share, settings.log_format)
    app = App(
        routes,
        tokens,
        metrics,
        access_log,
        binding_without_token=settings.binding_without_token,
        trace=tracing.begin if tracing is not None else None,
    )
    return _Gateway(app, monitor, crowd, kept_up.certificate, running, metrics, move)


def _tracing(settings: Settings) -> Tracing | None:
    """Import what makes spans, if they are to go anywhere.

    Raises:
        ConfigurationError: the packages are missing.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        from gateway.tracing import Tracing  # noqa: PLC0415 (most gateways do without, and without the extra)
    except ImportError as error:
        raise ConfigurationError(
            "GATEWAY_OTLP_ENDPOINT needs OpenTelemetry; install it: pip install 'tritonflare[otel]'"
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


def bind_for(settings: Settings) -> socket.socket:
    """Bind the address of the settings; with several workers the port is reserved for all of them.

    Raises:
        ConfigurationError: the address does not exist or is in use.
    """
    return bind(settings.host, settings.port, shared=settings.workers > 1)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Raises:
        ConfigurationError: the settings make no gateway, or the address cannot be bound.
    """
    configure_logging(settings.log_level, settings.log_format)
    uvloop.run(serve(settings, on_started=lambda url: _log.info("serving on %s%s", url, API_PREFIX)))


async def serve(
    settings: Settings,
    *,
    sockets: Sequence[socket.socket] | None = None,
    on_started: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    upstream: Upstream | None = None,
) -> None:
    """Serve inside the running event loop, for a process that has other things to look after too.

    Args:
        settings: the settings.
        sockets: sockets to listen on instead of ``settings.host`` and ``settings.port``; closed at the
            end. With several workers it is one, of `bind_for`.
        on_started: called once with the address (``http://127.0.0.1:8787``, the real port) when the
            gateway listens and is ready for the first time.
        stop: set it to shut down gracefully, as SIGTERM and SIGINT do in any case. Cancelling this
            coroutine shuts down without draining.
        upstream: through it, whoever looks after Triton tells what becomes of it.

    Raises:
        ConfigurationError: there is no token, or the address cannot be bound.
    """
    check_tokens(settings)
    certificate = check_certificate(settings)
    if settings.binding_without_token:
        _log.warning("Workers bindings on this machine need no token (GATEWAY_BINDING_WITHOUT_TOKEN)")
    unknown = unknown_variables(os.environ)
    if unknown:
        _log.warning("these environment variables are no settings: %s", ", ".join(unknown))
    listening = list(sockets) if sockets is not None else [bind_for(settings)]
    stopping = stop if stop is not None else asyncio.Event()
    at_once = asyncio.Event()

    def started() -> None:
        if on_started is not None:
            on_started(base_url(listening[0], "http" if certificate is None else "https"))

    with closing_all(listening), signals_set(stopping, at_once):
        if settings.workers > 1:
            supervisor = Supervisor(settings, _work, listening[0], stopping, at_once, upstream)
            await supervisor.run(started)
        else:
            gateway = _compose(settings)
            if upstream is not None:
                upstream.connect(gateway)
            await _serve_here(settings, gateway, listening, started, stopping, at_once)


async def _serve_here(
    settings: Settings,
    gateway: _Gateway,
    listening: Sequence[socket.socket],
    on_started: Callable[[], None],
    stop: asyncio.Event,
    at_once: asyncio.Event,
    *,
    wait_s: float = 0,
) -> None:
    """Serve in this process; listen when ready, but no later than after ``wait_s`` seconds."""
    server = Server(
        gateway.app,
        gateway.crowd,
        Patience(settings.keep_alive_timeout_s, settings.transfer_timeout_s),
        None if gateway.certificate is None else gateway.certificate.context,
    )
    # What exists by now stays for ever. Collecting costs a tenth of each request at Python's own pace.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    async with gateway.running():
        if wait_s:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(gateway.monitor.wait_until_ready(), wait_s)
        await server.start(listening)
        announcing = asyncio.create_task(_announce(gateway.monitor, on_started))
        try:
            await stop.wait()
            _log.info("stopping")
            # Readiness off, time for balancers to notice, then the port closes and requests drain.
            gateway.monitor.start_draining()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(at_once.wait(), settings.shutdown_delay_s)
            await server.stop(settings.drain_timeout_s, at_once)
        except asyncio.CancelledError:
            await server.stop(0, at_once)
            raise
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)


async def _announce(monitor: Monitor, on_started: Callable[[], None]) -> None:
    await monitor.wait_until_ready()
    on_started()


def _work(post: Post) -> None:
    """Serve as one of several processes."""
    configure_logging(post.settings.log_level, post.settings.log_format)
    post.metrics.keep_as(str(post.number))
    try:
        uvloop.run(_serve_at(post))
    except ConfigurationError as error:
        say(post, str(error))
        sys.exit(2)


async def _serve_at(post: Post) -> None:
    stop, at_once = asyncio.Event(), asyncio.Event()
    gateway = _compose(post.settings, post.metrics)
    with obeying(post, stop, at_once, gateway.move), closing_all([post.sock]):
        await _serve_here(
            post.settings,
            gateway,
            [post.sock],
            lambda: say(post, None),
            stop,
            at_once,
            # The others take the connections until it knows the models.
            wait_s=_REPLACEMENT_WAITS_S if post.replaces else 0,
        )
