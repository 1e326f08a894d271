"""What a model reads: a text, or a pair of texts."""

from __future__ import annotations

from dataclasses import dataclass

_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a text whose relevance to it a reranker scores; both UTF-8."""

    query: bytes
    text: bytes

    def __len__(self) -> int:
        """Bytes of both, by which calls are grouped."""
        return len(self.query) + len(self.text)

    def __bytes__(self) -> bytes:
        """Return the pair as bytes that no other pair has."""
        return self.prefix() + self.text

    def prefix(self) -> bytes:
        """Return the bytes of the pair up to its text: what pairs with the same query share."""
        return len(self.query).to_bytes(_LENGTH_BYTES, "big") + self.query


ModelInput = bytes | Pair
"""UTF-8. A classifier reads texts, a reranker pairs."""
