"""The gauges: what can be read of a gateway at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class GaugeSpec:
    """Name, help and, of several workers, which value counts."""

    name: str
    help_text: str
    mode: Literal["livesum", "livemin", "livemax"] = "livesum"


IN_FLIGHT = GaugeSpec(
    "tritonflare_requests_in_flight",
    "Requests between admission and answer; each text of a batch counts as one.",
)
READY = GaugeSpec("tritonflare_ready", "1 when /readyz answers 200, else 0.", "livemin")
IN_FLIGHT_LIMIT = GaugeSpec("tritonflare_requests_in_flight_limit", "GATEWAY_MAX_REQUESTS_IN_FLIGHT.")
QUEUED_TEXTS = GaugeSpec("tritonflare_queued_texts", "Texts that wait for a call slot.")
CALLS = GaugeSpec("tritonflare_calls_in_flight", "Inference calls to Triton under way.")
CALLS_OVERDUE = GaugeSpec(
    "tritonflare_calls_overdue",
    "Those of them that were not answered within the deadlines of their texts.",
)
CONNECTIONS = GaugeSpec("tritonflare_connections", "Open connections of callers, idle ones included.")
OPEN_FILES = GaugeSpec(
    "tritonflare_open_files_ratio",
    "Open file descriptors as a share of their limit; of several workers, the largest.",
    "livemax",
)
CACHE_BYTES = GaugeSpec("tritonflare_cache_bytes", "Memory that the answer cache takes, estimated.")
CACHE_ENTRIES = GaugeSpec("tritonflare_cache_entries", "Answers in the cache.")
BATCHES_QUEUED = GaugeSpec(
    "tritonflare_batches_queued", "Queued batches that no gateway runs at the moment.", "livemax"
)
BATCHES_RUNNING = GaugeSpec(
    "tritonflare_batches_running", "Queued batches that a gateway runs at the moment.", "livemax"
)
OLDEST_BATCH = GaugeSpec(
    "tritonflare_oldest_batch_seconds",
    "Age of the oldest batch without a result; 0 if there is none.",
    "livemax",
)
