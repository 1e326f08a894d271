"""Where rates are counted: in the memory of this process, or in Redis for all gateways together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, SlidingWindowCounterSupport, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from gateway.settings import ConfigurationError

_log = logging.getLogger("tritonflare.rate")

_LEAST_RETRY_AFTER_S = 0.1
_MARGIN_S = 0.005
"""Added to the wait, for the rounding of timers: at the exact time the place is not free yet."""
_REDIS_TIMEOUT_S = 0.25
_REDIS_CONNECTIONS = 32
_REDIS_PAUSE_S = 1.0
"""Pause after a failure before Redis is called again: an outage delays one request a second, not all."""


class RateStore(Protocol):
    """Counts what each bucket has spent within a window that slides."""

    async def spend(self, item: RateLimitItem, bucket: str, texts: int) -> float:
        """Count ``texts`` if they fit and return 0, else return the seconds until they do."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


class LimitsStore:
    """Counts in the memory of this process, or in another storage of `limits`."""

    def __init__(self, storage: Storage | None = None) -> None:
        self._storage = storage if storage is not None else MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)

    async def spend(self, item: RateLimitItem, bucket: str, texts: int) -> float:
        """See `RateStore`."""
        if await self._limiter.hit(item, bucket, cost=texts):
            return 0.0
        return await self._wait_s(item, bucket, texts)

    async def _wait_s(self, item: RateLimitItem, bucket: str, texts: int) -> float:
        """Seconds until ``texts`` fit, without further requests; the library only does this for one text."""
        window_s = item.get_expiry()
        windows = cast(SlidingWindowCounterSupport, self._storage)
        before, before_left_s, now, now_left_s = await windows.get_sliding_window(
            item.key_for(bucket), window_s
        )
        # Whole texts are counted, so fewer than this may be counted already.
        room = item.amount - texts + 1
        if now < room:
            # What was counted in the window before fades out until the present one ends.
            wait_s = before_left_s - (room - now) / before * window_s if before else 0.0
        else:
            wait_s = now_left_s - room / now * window_s
        return max(_LEAST_RETRY_AFTER_S, wait_s + _MARGIN_S)

    async def close(self) -> None:
        """Do nothing: memory needs no closing."""


class RedisStore:
    """Counts in Redis; while it is unreachable, this process counts alone, so that requests are still served.

    Args:
        url: ``redis://[:password@]host:port/db``, or ``rediss://`` for TLS, or ``unix:///path``.
        failed: called for each call that failed.

    Raises:
        ConfigurationError: the URL is malformed, or the extra is not installed.
    """

    def __init__(self, url: str, failed: Callable[[], None]) -> None:
        try:
            from redis.asyncio import BlockingConnectionPool  # noqa: PLC0415 - an extra
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.exceptions import RedisError  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                "GATEWAY_RATE_REDIS_URL needs the package redis: .venv/bin/pip install -e '.[redis]'."
            ) from None
        from limits.aio.storage import RedisStorage  # noqa: PLC0415 - beside the extra that it needs

        try:
            self._connections = BlockingConnectionPool.from_url(
                url,
                max_connections=_REDIS_CONNECTIONS,
                timeout=_REDIS_TIMEOUT_S,
                socket_connect_timeout=_REDIS_TIMEOUT_S,
                socket_timeout=_REDIS_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
        except Exception as exc:  # of any kind; the client's message may contain the password
            raise ConfigurationError(
                "GATEWAY_RATE_REDIS_URL is not of the form redis://[:password@]host:port/db."
            ) from exc
        self._errors = (RedisError, OSError)
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="tritonflare",
            connection_pool=cast(Any, self._connections),  # which has the address
        )
        self._shared = LimitsStore(storage)
        self._fallback = LimitsStore()
        self._failed = failed
        self._is_unreachable = False
        self._retry_at = 0.0

    async def spend(self, item: RateLimitItem, bucket: str, texts: int) -> float:
        """See `RateStore`."""
        now = time.monotonic()
        if now < self._retry_at:
            return await self._fallback.spend(item, bucket, texts)
        if self._is_unreachable:
            self._retry_at = now + _REDIS_PAUSE_S  # other requests need not wait for the answer to this one
        try:
            wait_s = await self._shared.spend(item, bucket, texts)
        except self._errors:
            self._failed()
            self._retry_at = time.monotonic() + _REDIS_PAUSE_S
            if not self._is_unreachable:
                self._is_unreachable = True
                _log.warning("Redis is unreachable; falling back to rate limits per process")
            return await self._fallback.spend(item, bucket, texts)
        self._retry_at = 0.0
        if self._is_unreachable:
            self._is_unreachable = False
            _log.info("Redis answers again")
        return wait_s

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.aclose()
