"""What a caller asks for beside the result: how to use the answer cache, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of one call; None is an option that was not given."""

    skip_cache: bool | None = None
    """Neither read nor fill the answer cache."""
    cache_ttl_s: int | None = None
    """How long an answer that is computed for this call stays in the cache; 0 for not at all."""
    patience_s: float | None = None
    """How long the client itself waits, from the beginning of the request."""

    @property
    def bypasses_cache(self) -> bool:
        """Whether the answer is neither looked up nor kept."""
        return bool(self.skip_cache) or self.cache_ttl_s == 0

    def over(self, other: CallOptions) -> CallOptions:
        """Return these options, and those of ``other`` where one was not given."""
        return CallOptions(
            other.skip_cache if self.skip_cache is None else self.skip_cache,
            other.cache_ttl_s if self.cache_ttl_s is None else self.cache_ttl_s,
            other.patience_s if self.patience_s is None else self.patience_s,
        )


NO_OPTIONS = CallOptions()
