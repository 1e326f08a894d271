"""Why operations of Triton are refused."""

from __future__ import annotations

SHARED_MEMORY = "Shared memory is not supported; send and receive the contents."
MODEL_CONTROL = "Models cannot be loaded or unloaded here; `tritonflare export` publishes them."
STATISTICS = "Statistics are metrics here: GET /metrics on the HTTP port."
SETTINGS = "Traces and logs are set up by the operator."
