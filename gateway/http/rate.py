"""How many requests a minute for each account."""

from __future__ import annotations

import time
from collections.abc import Collection

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from gateway.domain.errors import RateLimited
from gateway.http.message import Request
from gateway.tokens import ANY_ACCOUNT

_LEAST_RETRY_AFTER_S = 0.1


class RateLimit:
    """A rate for each account that a token names; all other accounts share one.

    The window slides: what was sent in the minute of the clock before counts in proportion to how much
    of it lies within the last 60 seconds.

    The callers of a token for any account choose the name of the account: with a rate for each they
    would have no limit, and a new name with every request would fill the memory.
    """

    def __init__(self, requests_per_minute: int, accounts: Collection[str]) -> None:
        """Allow ``requests_per_minute``, 0 for any number, for each of ``accounts``."""
        self._item = RateLimitItemPerMinute(requests_per_minute) if requests_per_minute else None
        self._accounts = frozenset(accounts)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def spend(self, request: Request, texts: int = 1) -> None:
        """Count ``texts`` for the account in the request's path; without a limit, do nothing.

        Raises:
            RateLimited: they would exceed the rate; nothing is counted then.
        """
        if self._item is None:
            return
        account = request.params.get("account_id", "")
        bucket = account if account in self._accounts else ANY_ACCOUNT
        if await self._limiter.hit(self._item, bucket, cost=texts):
            return
        stats = await self._limiter.get_window_stats(self._item, bucket)
        raise RateLimited(max(_LEAST_RETRY_AFTER_S, stats.reset_time - time.time()))
