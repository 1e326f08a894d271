"""What a caller asks for beside the result: use of the answer cache, its patience, how to read long texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LongTexts = Literal["cut", "window"]
"""A text with more tokens than its model reads is cut, or read in overlapping windows."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of one call; None is an option that was not given."""

    skip_cache: bool | None = None
    """Neither read nor fill the answer cache."""
    cache_ttl_s: int | None = None
    """How long an answer that is computed for this call stays in the cache; 0 for not at all."""
    patience_s: float | None = None
    """How long the client itself waits, from the beginning of the request."""
    long_texts: LongTexts | None = None
    """What becomes of texts with more tokens than the model reads; they are cut if it was not given."""

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
            other.long_texts if self.long_texts is None else self.long_texts,
        )


NO_OPTIONS = CallOptions()
