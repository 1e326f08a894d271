"""The gateway's metrics, in a registry of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest

from gateway.domain.service import Ranking, TaskAnswer
from gateway.server.connection_limiter import LimiterEvents
from gateway.telemetry.counters import (
    BatchCounters,
    CacheCounters,
    CallCounters,
    RequestCounters,
    ShadowCounters,
    TextCounters,
    grpc_requests,
    limiter_events,
    rate_store_failures,
)
from gateway.telemetry.gauges import READY, GaugeSpec
from gateway.telemetry.shared_metrics import SharedMetrics, restart_counter, triton_restart_counter

_PUBLISH_S = 0.25
"""Age that another process's gauges may have."""


class Metrics:
    """Counts, and renders what was counted.

    Args:
        shared: where the worker processes add their metrics up; None for a single process.
    """

    def __init__(self, shared: SharedMetrics | None = None) -> None:
        self._shared = shared
        self._registry = CollectorRegistry()
        self._requests = RequestCounters(self._registry)
        self._texts = TextCounters(self._registry)
        self._calls = CallCounters(self._registry)
        restart_counter(self._registry)
        self.triton_restarted = triton_restart_counter(self._registry)
        build = Gauge(
            "tritonflare_build_info",
            "Always 1; the label says which version runs.",
            ("version",),
            registry=self._registry,
            multiprocess_mode="max",
        )
        build.labels(version("tritonflare")).set(1)
        if shared is None:
            # It describes one process; of several workers, that would be the one that happens to answer.
            ProcessCollector(registry=self._registry)
        self._is_listening = shared is None
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []

    def register_gauges(self, readings: Mapping[GaugeSpec, Callable[[], float]]) -> None:
        """Add gauges; their functions are called for each scrape, so that no value is stale."""
        for spec, read in readings.items():
            gauge = Gauge(spec.name, spec.help_text, registry=self._registry, multiprocess_mode=spec.mode)
            if spec is READY:
                gauge.set(1)  # of several workers, the least counts
            self._gauges.append((gauge, self._once_listening(read) if spec is READY else read))

    def _once_listening(self, read: Callable[[], float]) -> Callable[[], float]:
        return lambda: read() if self._is_listening else 1.0

    def cache_counters(self) -> CacheCounters:
        """Add the counters of the answer cache; for a gateway that has one."""
        return CacheCounters(self._registry)

    def batch_counters(self) -> BatchCounters:
        """Add the counters of queued batches; for a gateway that has them."""
        return BatchCounters(self._registry)

    def shadow_counters(self) -> ShadowCounters:
        """Add the counters of second models; for a gateway that asks them."""
        return ShadowCounters(self._registry)

    def limiter_events(self) -> LimiterEvents:
        """Add the counters of connections that the limiter closes or refuses."""
        return limiter_events(self._registry)

    def grpc_requests(self) -> Callable[[str, str], None]:
        """Add the number of gRPC requests; the returned function counts one by method and status."""
        return grpc_requests(self._registry)

    def rate_store_failures(self) -> Callable[[], None]:
        """Add the number of failed calls to the store of rates; the returned function counts one."""
        return rate_store_failures(self._registry)

    def request_done(self, model: str, code: int, status: int, seconds: float) -> None:
        """Count one finished API request."""
        count, observe = self._requests.of(model, code, status)
        count()
        observe(seconds)

    def answered(self, model: str, answer: TaskAnswer) -> None:
        """Count the texts of one answer, or its pairs, and their tokens."""
        for text in answer.pairs if isinstance(answer, Ranking) else (answer,):
            count, observe = self._texts.of(model)
            count(text.tokens)
            observe(text.tokens)
            if text.truncated:
                self._texts.truncated.labels(model).inc()

    def call_sent(self, texts: int, waited_s: float) -> None:
        """Count one call of several texts."""
        self._calls.texts.observe(texts)
        self._calls.queue.observe(waited_s)

    def triton_called(self, outcome: str, seconds: float) -> None:
        """Count one inference call."""
        self._calls.duration.labels(outcome).observe(seconds)

    async def publish(self) -> None:
        """Publish the gauges to other processes until cancelled; return at once if there are none."""
        while self._shared is not None:
            self.read_gauges()
            await asyncio.sleep(_PUBLISH_S)

    def mark_listening(self) -> None:
        """Include this process in readiness: before it listens, no request reaches it."""
        self._is_listening = True
        self.read_gauges()

    def read_gauges(self) -> None:
        """Publish the gauges as they are now."""
        for gauge, read in self._gauges:
            gauge.set(read())

    def render(self) -> bytes:
        """Return the text exposition format 0.0.4; of several processes, the sums, if they are available."""
        self.read_gauges()
        sums = None if self._shared is None else self._shared.registry()
        return generate_latest(sums or self._registry)
