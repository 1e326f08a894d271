"""The limit of requests a minute for each account."""

from __future__ import annotations

from collections.abc import Callable, Collection

from limits import RateLimitItemPerMinute

from gateway.access.rate_store import LimitsStore, RateStore
from gateway.access.tokens import ANY_ACCOUNT
from gateway.domain.errors import RateLimited


class RateLimit:
    """A rate for each account that a token names; all other accounts share one.

    The window slides: what was sent in the minute of the clock before counts in proportion to how much
    of it lies within the last 60 seconds.

    The callers of a token for any account choose the name of the account: with a rate for each they
    would have no limit, and a new name with every request would fill the memory.
    """

    def __init__(
        self,
        requests_per_minute: int,
        accounts: Callable[[], Collection[str]],
        store: RateStore | None = None,
    ) -> None:
        """Allow ``requests_per_minute``, 0 for any number, for each of ``accounts``.

        Args:
            requests_per_minute: the rate.
            accounts: those that tokens name now.
            store: where it is counted; by default in this process.
        """
        self._item = RateLimitItemPerMinute(requests_per_minute) if requests_per_minute else None
        self._accounts = accounts
        self._store = store if store is not None else LimitsStore()

    async def spend(self, account: str, texts: int = 1) -> None:
        """Count ``texts`` for an account; without a limit, do nothing.

        All texts of a request are counted at once, so that a refusal counts nothing and its Retry-After
        is the time until as many fit.

        Raises:
            RateLimited: they would exceed the rate; nothing is counted then.
        """
        if self._item is None:
            return
        wait_s = await self._store.spend(self._item, self.bucket_of(account), texts)
        if wait_s:
            raise RateLimited(wait_s)

    def bucket_of(self, account: str) -> str:
        """Return the account that what this one does counts against."""
        return account if account in self._accounts() else ANY_ACCOUNT

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()
