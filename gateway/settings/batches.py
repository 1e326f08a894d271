"""Batches that are fetched later: where they are kept, and how many."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr

from gateway.settings.kinds import Bytes, Seconds


class BatchSettings(BaseModel):
    """Batches that are fetched later: where they are kept, and how many."""

    batch_folder: Path | None = Field(
        None,
        description="Folder for batches that are fetched later (queueRequest), on a local disk; all "
        "gateways of this host may share it. `tritonflare serve` uses .state/batches. Without it and without "
        "GATEWAY_BATCH_REDIS_URL, queueRequest is answered at once.",
    )
    batch_redis_url: SecretStr | None = Field(
        None,
        description="redis://[:password@]host:port/db that keeps these batches instead of a folder, for "
        "gateways on several hosts: any of them answers a poll, and takes over the batches of one that has "
        "died (extra redis).",
    )
    max_queued_batch_texts: int = Field(
        10_000,
        gt=0,
        description="Most texts, or pairs of a reranker, in one queued batch, but no more than "
        "GATEWAY_REQUESTS_PER_MINUTE; above it 400, code 5006.",
    )
    max_queued_body_bytes: Bytes = Field(
        10_000_000,
        description="Largest body of a request that queues a batch; a larger one gets 413, code 3006.",
    )
    max_queued_batches: int = Field(
        100,
        gt=0,
        description="Unfinished batches of an account; above it 429, code 3040. Accounts that no token names "
        "share one number.",
    )
    batch_store_bytes: Bytes = Field(
        1024 * 1024 * 1024,
        description="Size of all kept batches, results included; when a batch does not fit, 429, code 3040.",
    )
    batch_keep_s: Seconds = Field(
        86_400.0, description="Time that the result of a queued batch can be fetched before it is removed."
    )
