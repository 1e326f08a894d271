"""What the gateway counts, in a registry of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from gateway.domain.cache import Lookup
from gateway.domain.service import Classification
from gateway.server.connection_limiter import LimiterEvents
from gateway.telemetry.connection_metrics import limiter_events, rate_store_failures
from gateway.telemetry.shared_metrics import SharedMetrics, restart_counter, triton_restart_counter

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TOKENS = (8, 16, 32, 64, 128, 256, 512)
_Mode = Literal["livesum", "livemin", "livemax", "max"]
_PUBLISH_S = 0.25
"""How old another process's gauges may be."""


class Metrics:
    """Counters and histograms; every label has few values, whatever callers send."""

    def __init__(
        self, in_flight: Callable[[], float], ready: Callable[[], float], shared: SharedMetrics | None = None
    ) -> None:
        """Take the two gauges as functions: they are read when scraped and cannot go stale.

        Args:
            in_flight: how many texts are worked on.
            ready: 1 or 0.
            shared: where other processes find what this one counts, and this one what the others do.
        """
        self._shared = shared
        self._registry = CollectorRegistry()
        self._requests = _Requests(self._registry)
        self._texts = _Texts(self._registry)
        self._calls = _Calls(self._registry)
        restart_counter(self._registry)
        self.triton_restarted = triton_restart_counter(self._registry)
        build = self._gauge(
            "tritonflare_build_info", "Always 1; the label says which version runs.", "max", ("version",)
        )
        build.labels(version("tritonflare")).set(1)
        if shared is None:
            # It describes the process that is asked, and of several that would be any.
            ProcessCollector(registry=self._registry)
        in_flight_gauge = self._gauge(
            "tritonflare_requests_in_flight",
            "Requests between admission and answer; each text of a batch counts as one.",
        )
        ready_gauge = self._gauge("tritonflare_ready", "1 when /readyz answers 200, else 0.", "livemin")
        ready_gauge.set(1)  # of several, the least counts
        self._listening = shared is None
        self._gauges: tuple[tuple[Gauge, Callable[[], float]], ...] = (
            (in_flight_gauge, in_flight),
            (ready_gauge, lambda: ready() if self._listening else 1.0),
        )

    def watch_load(
        self,
        most_in_flight: int,
        waiting: Callable[[], float],
        calls: Callable[[], float],
        overdue: Callable[[], float],
    ) -> None:
        """Add the bound on what is in flight, and how many texts wait and calls are under way or overdue."""
        self._gauges += (
            (
                self._gauge("tritonflare_requests_in_flight_limit", "GATEWAY_MAX_REQUESTS_IN_FLIGHT."),
                lambda: most_in_flight,
            ),
            (self._gauge("tritonflare_queued_texts", "Texts that wait for a call slot."), waiting),
            (self._gauge("tritonflare_calls_in_flight", "Inference calls to Triton under way."), calls),
            (
                self._gauge(
                    "tritonflare_calls_overdue",
                    "Those of them that were not answered within the deadlines of their texts.",
                ),
                overdue,
            ),
        )

    def watch_cache(self, size: Callable[[], float], entries: Callable[[], float]) -> CacheMetrics:
        """Add what is counted of the answer cache; for a gateway that has one."""
        self._gauges += (
            (self._gauge("tritonflare_cache_bytes", "Memory that the answer cache takes, estimated."), size),
            (self._gauge("tritonflare_cache_entries", "Answers in the cache."), entries),
        )
        return CacheMetrics(self._registry)

    def watch_connections(self, count: Callable[[], float]) -> LimiterEvents:
        """Add what is counted of connections."""
        gauge = self._gauge("tritonflare_connections", "Open connections of callers, idle ones included.")
        self._gauges += ((gauge, count),)
        return limiter_events(self._registry)

    def watch_open_files(self, share: Callable[[], float]) -> None:
        """Add the share of the limit of open files that is used; of several processes, the largest."""
        help_text = "Open file descriptors as a share of their limit; of several workers, the largest."
        self._gauges += ((self._gauge("tritonflare_open_files_ratio", help_text, "livemax"), share),)

    def watch_rate_store(self) -> Callable[[], None]:
        """Add the number of failed calls to the store of rates; what is returned counts one."""
        return rate_store_failures(self._registry)

    def _gauge(
        self, name: str, help_text: str, mode: _Mode = "livesum", labels: tuple[str, ...] = ()
    ) -> Gauge:
        return Gauge(name, help_text, labels, registry=self._registry, multiprocess_mode=mode)

    def request_done(self, model: str, code: int, status: int, seconds: float) -> None:
        """Count one finished API request."""
        count, observe = self._requests.of(model, code, status)
        count()
        observe(seconds)

    def text_classified(self, model: str, answer: Classification) -> None:
        """Count the tokens of one answer."""
        count, observe = self._texts.of(model)
        count(answer.tokens)
        observe(answer.tokens)
        if answer.truncated:
            self._texts.truncated.labels(model).inc()

    def call_sent(self, texts: int, waited_s: float) -> None:
        """Count one call of several texts."""
        self._calls.texts.observe(texts)
        self._calls.queue.observe(waited_s)

    def triton_called(self, outcome: str, seconds: float) -> None:
        """Count one inference call."""
        self._calls.duration.labels(outcome).observe(seconds)

    async def publish(self) -> None:
        """Let other processes know the gauges, for ever; return at once if there are none."""
        while self._shared is not None:
            self.read_gauges()
            await asyncio.sleep(_PUBLISH_S)

    def listens(self) -> None:
        """Count for readiness from now on: until it listens, a process can be asked by nobody."""
        self._listening = True
        self.read_gauges()

    def read_gauges(self) -> None:
        """Let other processes know the gauges as they are now."""
        for gauge, read in self._gauges:
            gauge.set(read())

    def render(self) -> bytes:
        """Return the text exposition format 0.0.4; of several processes, the sums, if they can be had."""
        self.read_gauges()
        sums = None if self._shared is None else self._shared.registry()
        return generate_latest(sums or self._registry)


class _Requests:
    """What is counted of each request to the API."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "tritonflare_requests",
            "Requests to the API, by model ('unknown': not served, 'none': not about one model, or refused"
            " before it was looked for), API error code (0: success) and HTTP status.",
            ("model", "code", "status"),
            registry=registry,
        )
        duration = Histogram(
            "tritonflare_request_duration_seconds",
            "Time from the request's headers to its answer.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        # Looking a child up by its labels costs more than counting: the labels are few, so all are kept.
        self.of = cache(
            lambda model, code, status: (
                requests.labels(model, str(code), str(status)).inc,
                duration.labels(model).observe,
            )
        )


class _Texts:
    """What is counted of each text that has an answer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        tokens = Counter(
            "tritonflare_tokens", "Tokens read by the model, after truncation.", ("model",), registry=registry
        )
        text_tokens = Histogram(
            "tritonflare_text_tokens",
            "Tokens of one text as the model reads it: special tokens included, after truncation.",
            ("model",),
            buckets=_TOKENS,
            registry=registry,
        )
        self.truncated = Counter(
            "tritonflare_truncated_texts",
            "Texts that were longer than the model reads.",
            ("model",),
            registry=registry,
        )
        self.of = cache(lambda model: (tokens.labels(model).inc, text_tokens.labels(model).observe))


class _Calls:
    """What is counted of each call to Triton."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "tritonflare_triton_call_duration_seconds",
            "Time of one inference call to Triton, canaries included, by outcome.",
            ("outcome",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.duration.labels("ok")  # an alert must see that none was answered yet
        self.texts = Histogram(
            "tritonflare_call_texts",
            "Texts in one inference call to Triton.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.queue = Histogram(
            "tritonflare_queue_duration_seconds",
            "Time that the oldest text of a call has waited for a call slot.",
            buckets=_SECONDS,
            registry=registry,
        )


class CacheMetrics:
    """What is counted of the answer cache."""

    def __init__(self, registry: CollectorRegistry) -> None:
        lookups = Counter(
            "tritonflare_cache_lookups",
            "Texts looked up in the answer cache: hit (kept), shared (on its way for another request)"
            " or miss.",
            ("result",),
            registry=registry,
        )
        self._count = {result: lookups.labels(result).inc for result in ("hit", "shared", "miss")}
        evictions = Counter(
            "tritonflare_cache_evictions",
            "Entries of the answer cache that made room for others.",
            registry=registry,
        )
        self.evicted: Callable[[int], None] = evictions.inc

    def looked_up(self, result: Lookup) -> None:
        """Count one text."""
        self._count[result]()
