"""Batches in Redis, for the gateways of a fleet: each answers any poll and takes over from a dead one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any, cast

from gateway.batches import redis_scripts as scripts
from gateway.batches.store import (
    BATCH_BYTES,
    CHUNK_BYTES,
    PAGE_BYTES,
    BatchSummary,
    ClaimedBatch,
    FinishedBatch,
    NewBatch,
    PendingBatch,
    StoreLimits,
    StoreStats,
)
from gateway.domain.errors import BatchQueueFull, BatchStoreUnavailable

_log = logging.getLogger("tritonflare.batches")

_CONNECT_S = 1.0
_ANSWER_S = 5.0
"""For the answer to a script: a batch may have megabytes."""
_CONNECTIONS = 32
_BYTES = BATCH_BYTES, PAGE_BYTES, CHUNK_BYTES
"""For `kept_bytes` in a script."""


class MalformedRedisUrl(ValueError):
    """It is not of the form ``redis://[:password@]host:port/db``; the message does not repeat it."""


class RedisBatchStore:
    """A BatchStore in Redis; see `BatchStore` for its methods.

    What it has acknowledged is as durable as that Redis is configured to be.

    Args:
        url: ``redis://[:password@]host:port/db``, or ``rediss://`` for TLS, or ``unix:///path``.
        limits: see `StoreLimits`.

    Raises:
        ImportError: the extra ``redis`` is not installed.
        MalformedRedisUrl: the URL is malformed.
    """

    def __init__(self, url: str, limits: StoreLimits) -> None:
        from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415 (an extra)
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import ConnectionError as Disconnected  # noqa: PLC0415
        from redis.exceptions import RedisError  # noqa: PLC0415

        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=_CONNECT_S,
                socket_connect_timeout=_CONNECT_S,
                socket_timeout=_ANSWER_S,
                # For a connection that was closed while it was idle; every script may run twice.
                retry=Retry(NoBackoff(), 1, (Disconnected,)),
            )
        except (ValueError, TypeError):
            raise MalformedRedisUrl from None  # the message may contain the password
        self._redis: Any = Redis(connection_pool=pool)
        self._pool = pool
        self._errors = (RedisError, OSError)
        self._limits = limits
        self._scripts: dict[str, Any] = {}
        self._is_failing = False
        self._is_closed = False

    async def check_room(self, bucket: str, size: int) -> None:
        """See `BatchStore`."""
        if not await self._call(scripts.CHECK_ROOM, bucket, size, *self._bounds()):
            raise BatchQueueFull

    async def submit(self, batch: NewBatch) -> None:
        """See `BatchStore`."""
        named = batch.id, batch.account, batch.bucket, batch.model, batch.inputs, batch.size
        if not await self._call(scripts.SUBMIT, *named, *self._bounds(), *batch.chunks):
            raise BatchQueueFull

    def _bounds(self) -> tuple[int, int]:
        return self._limits.max_queued_batches, self._limits.batch_store_bytes

    async def find(self, account: str, batch_id: str) -> PendingBatch | FinishedBatch | None:
        """See `BatchStore`."""
        found = await self._call(scripts.FIND, account, batch_id)
        if found is None:
            return None
        model = found[0].decode()
        if len(found) == 2:
            return PendingBatch(batch_id, model, found[1] == b"1")
        places, outcomes = found[2][::2], found[2][1::2]
        by_place = dict(zip(map(int, places), outcomes, strict=True))
        return FinishedBatch(batch_id, model, [by_place[place] for place in sorted(by_place)])

    async def claim(self, owner: str, lease_s: float, skip: Collection[str] = ()) -> ClaimedBatch | None:
        """See `BatchStore`."""
        found = await self._call(scripts.CLAIM, owner, lease_s, *skip)
        if found is None:
            return None
        batch_id, model, places = found
        return ClaimedBatch(batch_id.decode(), model.decode(), sorted(map(int, places)))

    async def renew(self, batch_id: str, owner: str, lease_s: float) -> bool:
        """See `BatchStore`."""
        return bool(await self._call(scripts.RENEW, batch_id, owner, lease_s))

    async def inputs(self, batch_id: str, place: int) -> bytes | None:
        """See `BatchStore`."""
        found = await self._run(lambda: self._redis.hget(f"{scripts.PREFIX}:inputs:{batch_id}", str(place)))
        return cast("bytes | None", found)

    async def save(self, batch_id: str, place: int, outcomes: bytes, failed: int) -> None:
        """See `BatchStore`."""
        await self._call(scripts.SAVE, batch_id, place, outcomes, failed)

    async def finish(self, batch_id: str) -> BatchSummary | None:
        """See `BatchStore`."""
        found = await self._call(scripts.FINISH, batch_id, self._limits.batch_keep_s, *_BYTES)
        if found is None:
            return None
        model, inputs, failed, seconds = found
        return BatchSummary(model.decode(), int(inputs), int(failed), max(0.0, float(seconds)))

    async def release(self, batch_id: str, owner: str) -> None:
        """See `BatchStore`."""
        await self._call(scripts.RELEASE, batch_id, owner)

    async def remove_expired(self) -> None:
        """See `BatchStore`."""
        while await self._call(scripts.REMOVE_EXPIRED):
            pass

    async def stats(self) -> StoreStats:
        """See `BatchStore`."""
        queued, running, oldest = await self._call(scripts.STATS)
        return StoreStats(queued, running, max(0.0, float(oldest)))

    async def close(self) -> None:
        """See `BatchStore`."""
        self._is_closed = True
        await self._redis.aclose()
        await self._pool.aclose()

    async def _call(self, script: str, *arguments: str | bytes | float) -> Any:
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._redis.register_script(script)
        # The name in KEYS tells a cluster where to run it; the scripts make the others with the same tag.
        return await self._run(lambda: registered(keys=[scripts.PREFIX], args=arguments))

    async def _run(self, call: Callable[[], Awaitable[Any]]) -> Any:
        if self._is_closed:
            raise BatchStoreUnavailable  # the client would connect again
        try:
            result = await call()
        except self._errors as exc:
            if not self._is_failing:
                # The class alone: the text of an error may hold the address and what was sent.
                _log.warning("queued batches: Redis failed (%s)", type(exc).__name__)
            self._is_failing = True
            raise BatchStoreUnavailable from exc
        if self._is_failing:
            _log.info("queued batches: Redis answers again")
            self._is_failing = False
        return result
