"""The counters and histograms, by what they count; callers cannot add values to a label."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.domain.cache import Lookup
from gateway.domain.catalogue import Model
from gateway.server.connection_limiter import LimiterEvents
from gateway.shadow.comparison import Comparison
from gateway.shadow.mirror import Drop

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH_SECONDS = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0)
_SHIFTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_TOKENS = (8, 16, 32, 64, 128, 256, 512)


class RequestCounters:
    """Counts requests to the API."""

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


class TextCounters:
    """Counts texts that were answered."""

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


class CallCounters:
    """Counts calls to Triton."""

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


class CacheCounters:
    """Counts lookups and evictions of the answer cache."""

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


class BatchCounters:
    """Counts queued batches."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted: Callable[[], None] = Counter(
            "tritonflare_batches_accepted", "Batches that were queued.", registry=registry
        ).inc
        finished = Counter(
            "tritonflare_batches_finished",
            "Queued batches that have a result: ok, or failed if every input of it failed.",
            ("result",),
            registry=registry,
        )
        self._finished = {result: finished.labels(result).inc for result in ("ok", "failed")}
        self._duration = Histogram(
            "tritonflare_batch_duration_seconds",
            "Time from the acceptance of a queued batch to its result.",
            buckets=_BATCH_SECONDS,
            registry=registry,
        ).observe

    def finished(self, *, failed: bool, seconds: float) -> None:
        """Count one batch."""
        self._finished["failed" if failed else "ok"]()
        self._duration(seconds)


class ShadowCounters:
    """Counts how the answers of second models differ; see `gateway.shadow`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        versions = ("model", "version", "shadow", "shadow_version")
        self._texts = Counter(
            "tritonflare_shadow_texts",
            "Texts that a second model was asked too: its best label is the same (agrees), another (differs),"
            " or it gave an error (failed).",
            (*versions, "result"),
            registry=registry,
        )
        self._shift = Histogram(
            "tritonflare_shadow_score_shift",
            "By how much the second model's score of the best label is higher (up) or lower (down).",
            (*versions, "direction"),
            buckets=_SHIFTS,
            registry=registry,
        )
        self._dropped = Counter(
            "tritonflare_shadow_dropped",
            "Texts that a second model was not asked: the queue was full, callers kept the server busy, or"
            " the model was unavailable.",
            ("model", "shadow", "reason"),
            registry=registry,
        )

    def compared(self, model: Model, shadow: Model, found: Comparison) -> None:
        """Count a text that both models have answered."""
        labels = (model.name, model.version_id, shadow.name, shadow.version_id)
        self._texts.labels(*labels, "agrees" if found.agrees else "differs").inc()
        if found.shift is not None:
            self._shift.labels(*labels, "up" if found.shift > 0 else "down").observe(abs(found.shift))

    def failed(self, model: Model, shadow: Model) -> None:
        """Count a text to which the second model gave an error."""
        labels = (model.name, model.version_id, shadow.name, shadow.version_id)
        self._texts.labels(*labels, "failed").inc()

    def dropped(self, model: str, shadow: str, reason: Drop) -> None:
        """Count a text that was not sent."""
        self._dropped.labels(model, shadow, reason).inc()


def limiter_events(registry: CollectorRegistry) -> LimiterEvents:
    """Declare the counters of connections that were closed or refused for lack of room."""
    made_room = Counter(
        "tritonflare_connections_made_room",
        "Idle connections that were closed to make room for new ones.",
        registry=registry,
    )
    refused = Counter(
        "tritonflare_connections_refused",
        "Connections that found no room: there was a request under way on each of the others.",
        registry=registry,
    )
    return LimiterEvents(made_room.inc, refused.inc)


def rate_store_failures(registry: CollectorRegistry) -> Callable[[], None]:
    """Declare the number of failed calls to the store of rates; the returned function counts one."""
    return Counter(
        "tritonflare_rate_store_failures",
        "Failed calls to Redis for the rate of requests; for a second after each, this process counts alone.",
        registry=registry,
    ).inc


def grpc_requests(registry: CollectorRegistry) -> Callable[[str, str], None]:
    """Declare the number of gRPC requests; the returned function counts one by method and status."""
    requests = Counter(
        "tritonflare_grpc_requests",
        "Requests over gRPC, by method and status; each message of a stream is one.",
        ("method", "status"),
        registry=registry,
    )
    return lambda method, status: requests.labels(method, status).inc()
