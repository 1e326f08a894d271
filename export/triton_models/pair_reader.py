"""Token ids of pairs; how pairs are made stands in pairs.py.

``token_count`` is -1 where the query alone leaves no room for a token of the text; the row then holds
special tokens alone, whose logits mean nothing.
"""

from collections.abc import Sequence
from typing import Any

from .pairs import PairEncoder
from .text_reader import Row, TextReader
from .windows import read_windows


class PairReader(TextReader):
    """Tokenizes the pairs of a request, a query beside each text."""

    inputs = ("QUERY", "TEXT")
    called = "QUERY or TEXT"

    def prepare(self, max_tokens: int, side: str) -> None:
        """Truncation is the pair encoder's: tokenizers' own fails a batch for one long query."""
        self.tokenizer.no_truncation()
        self.pairs = PairEncoder(self.tokenizer, max_tokens, side)

    def gather(self, columns: Sequence[list[bytes]], parameters: str = "") -> tuple[list[Any], int]:
        """The pairs of a request, and how many bytes there are to tokenize: a query counts once.

        Raises:
            ValueError: the parameters ask for windows, which pairs do not have.
        """
        if read_windows(parameters, columns[1], 0) is not None:
            raise ValueError("pairs have no windows")
        queries, texts = columns
        size = sum(map(len, set(queries))) + sum(map(len, texts))
        return list(zip(queries, texts, strict=True)), size

    def encode(self, texts: list[Any], *, long: bool) -> list[Row]:
        """Tokenize pairs of UTF-8 texts; ``long`` ones one after the other, as far as the model reads."""
        pairs = [(query.decode("utf-8"), text.decode("utf-8")) for query, text in texts]
        rows = self.pairs.encode_long(pairs) if long else self.pairs.encode_batch(pairs)
        # A row without any token would have nothing to attend to; its logits are ignored anyway.
        return [(ids or [self.pad_id], types or [0], count) for ids, types, count in rows]
