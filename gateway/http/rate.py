"""How many requests a minute for each account."""

from __future__ import annotations

from collections.abc import Collection

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from gateway.domain.errors import RateLimited
from gateway.http.message import Request
from gateway.tokens import ANY_ACCOUNT

_LEAST_RETRY_AFTER_S = 0.1
_MARGIN_S = 0.005
"""On top of the wait, for the rounding of timers: at the very moment the place is not free yet."""


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
        self._storage = MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)

    async def spend(self, request: Request, texts: int = 1) -> None:
        """Count ``texts`` for the account in the request's path; without a limit, do nothing.

        All texts of a request are counted at once, so that a refusal takes nothing and can say when there
        is room for as many.

        Raises:
            RateLimited: they would exceed the rate; nothing is counted then.
        """
        if self._item is None:
            return
        account = request.params.get("account_id", "")
        bucket = account if account in self._accounts else ANY_ACCOUNT
        if await self._limiter.hit(self._item, bucket, cost=texts):
            return
        raise RateLimited(await self._wait_s(self._item, bucket, texts))

    async def _wait_s(self, item: RateLimitItem, bucket: str, texts: int) -> float:
        """Seconds until ``texts`` fit, if nobody else takes the room; the library knows it for one only."""
        window_s = item.get_expiry()
        before, before_left_s, now, now_left_s = await self._storage.get_sliding_window(
            item.key_for(bucket), window_s
        )
        # Whole texts are counted, so less than this may be there.
        room = item.amount - texts + 1
        if now < room:
            # What was counted in the window before fades out until the present one ends.
            wait_s = before_left_s - (room - now) / before * window_s if before else 0.0
        else:
            wait_s = now_left_s - room / now * window_s
        return max(_LEAST_RETRY_AFTER_S, wait_s + _MARGIN_S)
