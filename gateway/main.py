"""Serving: the composed gateway, its port, its signals, its shutdown."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import uvloop

from gateway.access.credentials import ReloadableCredentials, token_uses
from gateway.access.token_uses import warn_of_unrecorded_uses
from gateway.access.tokens import TokenTable
from gateway.api.routes import API_PREFIX
from gateway.composition import Gateway, compose
from gateway.ports import Ports, grpc_address
from gateway.processes.messages import Ready, Refused
from gateway.processes.signals import signals_set
from gateway.processes.tasks import running_beside
from gateway.processes.triton_events import TritonEventRelay
from gateway.processes.worker_control import WorkerSpec, report, worker_control
from gateway.processes.worker_pool import WorkerPool
from gateway.server.bind import base_url, closing_all
from gateway.server.connection.timeouts import Timeouts
from gateway.server.listener import HttpServer
from gateway.settings import ConfigurationError, Settings
from gateway.telemetry.logs import configure_logging
from gateway.triton_address import check_triton_address
from gateway.unknown_variables import unknown_variables

_log = logging.getLogger("tritonflare.gateway")

_REPLACEMENT_WAITS_S = 5.0


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Raises:
        ConfigurationError: the settings make no gateway, or the address cannot be bound.
    """
    check_triton_address(settings)
    configure_logging(settings.log_level, settings.log_format)
    uvloop.run(serve(settings, on_started=lambda url: _log.info("serving on %s%s", url, API_PREFIX)))


async def serve(
    settings: Settings,
    *,
    ports: Ports | None = None,
    on_started: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    triton_events: TritonEventRelay | None = None,
    tokens: TokenTable | None = None,
) -> None:
    """Serve inside the running event loop, in a process that may do other things too.

    Args:
        settings: the settings.
        ports: bound earlier; closed at the end.
        on_started: called once with the address (``http://127.0.0.1:8787``, the real port) when the
            gateway listens and is ready for the first time.
        stop: set it to shut down gracefully, as SIGTERM and SIGINT do in any case. Cancelling this
            coroutine shuts down without draining.
        triton_events: relays the events of an embedded Triton to the gateway.
        tokens: in force until ``settings.tokens_file`` can be read, which may not exist yet.

    Raises:
        ConfigurationError: there is no token, or the address cannot be bound.
    """
    credentials = ReloadableCredentials(settings, tokens)
    uses = token_uses(settings)
    if uses is not None:
        warn_of_unrecorded_uses(uses, is_chosen=settings.token_uses_file is not None)
    if settings.binding_without_token:
        _log.warning("Workers bindings on this machine need no token (GATEWAY_BINDING_WITHOUT_TOKEN)")
    unknown = unknown_variables(os.environ)
    if unknown:
        _log.warning("unknown environment variables: %s", ", ".join(unknown))
    listening = ports if ports is not None else Ports.bind(settings)
    settings = listening.known_to(settings)
    stopping = stop if stop is not None else asyncio.Event()
    at_once = asyncio.Event()

    def started() -> None:
        if on_started is not None:
            on_started(base_url(listening.http, "http" if credentials.certificate is None else "https"))
        if settings.grpc_port is not None:
            _log.info("serving gRPC on %s", grpc_address(settings))

    with listening, signals_set(stopping, at_once):
        if settings.workers > 1:
            pool = WorkerPool(
                settings, _work, listening.http, stopping, at_once, triton_events, credentials.tokens
            )
            async with running_beside(credentials.tasks()):
                await pool.run(started)
        else:
            gateway = compose(settings, known=tokens)
            if triton_events is not None:
                triton_events.connect(gateway)
            await _serve_here(settings, gateway, [listening.http], started, stopping, at_once)


async def _serve_here(
    settings: Settings,
    gateway: Gateway,
    listening: Sequence[socket.socket],
    on_started: Callable[[], None],
    stop: asyncio.Event,
    at_once: asyncio.Event,
    *,
    wait_s: float = 0,
) -> None:
    """Serve in this process; listen when ready, but no later than after ``wait_s`` seconds."""
    server = HttpServer(
        gateway.app,
        gateway.limiter,
        Timeouts(settings.keep_alive_timeout_s, settings.transfer_timeout_s),
        None if gateway.certificate is None else gateway.certificate.context,
    )
    # All objects so far are permanent, and Python's default thresholds cost a tenth of each request.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    async with gateway.running():
        if wait_s:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(gateway.monitor.wait_until_ready(), wait_s)
        if gateway.grpc is not None:  # first, because it may fail
            await gateway.grpc.start(grpc_address(settings))
        await server.start(listening)
        gateway.metrics.mark_listening()
        announcing = asyncio.create_task(_announce(gateway, on_started))
        try:
            await stop.wait()
            _log.info("stopping")
            # Readiness turns off, balancers get time to notice, then the port closes and requests drain.
            gateway.monitor.start_draining()
            server.start_draining()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(at_once.wait(), settings.shutdown_delay_s)
            await asyncio.gather(
                server.stop(settings.drain_timeout_s, at_once, idle_s=settings.drain_keep_alive_s),
                *([] if gateway.grpc is None else [gateway.grpc.stop(settings.drain_timeout_s, at_once)]),
            )
        except asyncio.CancelledError:
            await server.stop(0, at_once)
            if gateway.grpc is not None:
                await gateway.grpc.stop(0, at_once)
            raise
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)


async def _announce(gateway: Gateway, on_started: Callable[[], None]) -> None:
    await gateway.monitor.wait_until_ready()
    gateway.metrics.read_gauges()  # so that the metrics of all workers show it before it is announced
    on_started()


def _work(spec: WorkerSpec) -> None:
    """Serve as one of several processes."""
    configure_logging(spec.settings.log_level, spec.settings.log_format)
    spec.metrics.keep_as(str(spec.number))
    try:
        uvloop.run(_serve_at(spec))
    except ConfigurationError as error:
        report(spec, Refused(str(error)))
        sys.exit(2)


async def _serve_at(spec: WorkerSpec) -> None:
    stop, at_once = asyncio.Event(), asyncio.Event()
    gateway = compose(spec.settings, spec.metrics, spec.tokens)
    with worker_control(spec, stop, at_once, gateway.hand_over), closing_all([spec.sock]):
        await _serve_here(
            spec.settings,
            gateway,
            [spec.sock],
            lambda: report(spec, Ready()),
            stop,
            at_once,
            # The other workers accept the connections until this one knows the models.
            wait_s=_REPLACEMENT_WAITS_S if spec.replaces else 0,
        )
