"""What is counted of connections and of the shared rate."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from gateway.server.connection_limiter import LimiterEvents


def limiter_events(registry: CollectorRegistry) -> LimiterEvents:
    """Declare the counters of connections that were closed or refused for lack of room."""
    evicted = Counter(
        "tritonflare_connections_made_room",
        "Idle connections that were closed to make room for new ones.",
        registry=registry,
    )
    refused = Counter(
        "tritonflare_connections_refused",
        "Connections that found no room: there was a request under way on each of the others.",
        registry=registry,
    )
    return LimiterEvents(evicted.inc, refused.inc)


def rate_store_failures(registry: CollectorRegistry) -> Callable[[], None]:
    """Declare the number of failed calls to the store of rates; what is returned counts one."""
    return Counter(
        "tritonflare_rate_store_failures",
        "Failed calls to Redis for the rate of requests; for a second after each, this process counts alone.",
        registry=registry,
    ).inc
