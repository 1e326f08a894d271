"""What a model reads: a text, a pair of texts, or a window of a long text."""

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


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a text that is longer than its model reads; Triton cuts it, because it has the tokenizer.

    The model's answer has the ``token_count`` of a text that begins where the window does.
    """

    text: bytes
    """The whole text, UTF-8."""
    number: int
    """From 0: what an ordinary text is cut to. Each further one begins before the last one's end."""
    overlap: int
    """By so many tokens."""
    most: int
    """How many windows of the text are read at most."""
    size: int
    """About as many bytes as a window has, by which calls are grouped."""

    def __len__(self) -> int:
        """Bytes, about."""
        return self.size

    def __bytes__(self) -> bytes:
        """Return the window as bytes that no other window, and no text, has."""
        return self.prefix() + self.rest()

    def prefix(self) -> bytes:
        """Return the bytes of the window up to its number: what windows of the same text share."""
        # No UTF-8 text begins with this byte.
        return b"\xff" + len(self.text).to_bytes(_LENGTH_BYTES, "big") + self.text

    def rest(self) -> bytes:
        """Return the bytes after `prefix`."""
        numbers = (self.number, self.overlap, self.most)
        return b"".join(number.to_bytes(_LENGTH_BYTES, "big") for number in numbers)


ModelInput = bytes | Pair | Window
"""UTF-8. A classifier reads texts and their windows, a reranker pairs."""
