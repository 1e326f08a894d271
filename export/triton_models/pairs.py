"""Tokenize pairs (query, context) exactly as ``transformers`` does with truncation="only_second".

Query and context are tokenized apart and put together here, because that is what ``tokenizers`` does inside,
and because it fails a whole batch where one query leaves no room for its context. A query that stands
beside many contexts is tokenized once.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Tokenizer

from .long_texts import FIRST_READ, TextParts

NO_ROOM = -1
"""The count of a pair whose query alone leaves no room for a token of its context."""
_PROBES = ("a", "0", "!", "the")
_PROBED_WORDS = 100


class PairTokens(NamedTuple):
    """Token ids and token types of a pair as the model reads them, and its tokens before truncation.

    ``token_count`` includes special tokens. Of a context that was not read to its end it is a lower bound
    above the limit. NO_ROOM means that ids and types stand for nothing.
    """

    ids: list[int]
    types: list[int]
    token_count: int


@dataclass(frozen=True)
class PairLayout:
    """Special tokens before, between and after query and context, with the token types of all five parts."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    before_types: tuple[int, ...]
    between_types: tuple[int, ...]
    after_types: tuple[int, ...]
    query_type: int
    context_type: int

    @property
    def special(self) -> int:
        """Special tokens of a pair."""
        return len(self.before) + len(self.between) + len(self.after)

    @property
    def largest_type(self) -> int:
        """The largest token type of any pair."""
        types = (*self.before_types, *self.between_types, *self.after_types)
        return max((*types, self.query_type, self.context_type))

    def join(self, query: Sequence[int], context: Sequence[int], count: int) -> PairTokens:
        """Put the tokens of a query and of a context together."""
        ids = [*self.before, *query, *self.between, *context, *self.after]
        types = [
            *self.before_types,
            *[self.query_type] * len(query),
            *self.between_types,
            *[self.context_type] * len(context),
            *self.after_types,
        ]
        return PairTokens(ids, types, count)


def pair_layout(tokenizer: Tokenizer) -> PairLayout:
    """What a tokenizer puts around query and context, found by asking it.

    Args:
        tokenizer: one that does not truncate.

    Raises:
        ValueError: its post-processor does not put each of them in once, the query first.
    """
    word, length = _probe(tokenizer)
    encoding = tokenizer.encode(word, word)
    ids, types, parts = encoding.ids, encoding.type_ids, encoding.sequence_ids
    query, context = ([place for place, part in enumerate(parts) if part == which] for which in (0, 1))
    ordinary = encoding.special_tokens_mask.count(0)
    if len(query) != length or len(context) != length or ordinary != 2 * length:
        raise ValueError("it does not put query and context into a pair once each")
    start, middle = query[0], context[0]
    end, last = start + length, middle + length
    if query != list(range(start, end)) or context != list(range(middle, last)) or middle < end:
        raise ValueError("it does not put the query before the context")
    return PairLayout(
        before=tuple(ids[:start]),
        between=tuple(ids[end:middle]),
        after=tuple(ids[last:]),
        before_types=tuple(types[:start]),
        between_types=tuple(types[end:middle]),
        after_types=tuple(types[last:]),
        query_type=types[start],
        context_type=types[middle],
    )


def _probe(tokenizer: Tokenizer) -> tuple[str, int]:
    """A word that has tokens, and how many; a vocabulary of words may know none of the usual ones."""
    for word in (*_PROBES, *sorted(tokenizer.get_vocab(with_added_tokens=False))[:_PROBED_WORDS]):
        # Without a token for unknown words, tokenizers raises bare Exception.
        with suppress(Exception):
            if length := len(tokenizer.encode(word, add_special_tokens=False).ids):
                return word, length
    raise ValueError("it makes no tokens of any text")


class PairEncoder:
    """Encodes pairs; long contexts and queries are read only as far as the model's limit needs.

    Args:
        tokenizer: neither pads nor truncates; it must stay so.
        max_tokens: the model's limit, special tokens included.
        side: "right" keeps the beginning of a context that is too long, "left" its end.

    Raises:
        ValueError: see `pair_layout`.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, side: str) -> None:
        """Find out how the tokenizer makes pairs, and where its texts may be cut."""
        self._tokenizer = tokenizer
        self._left = side == "left"
        self.layout = pair_layout(tokenizer)
        self._budget = max_tokens - self.layout.special
        self._queries = TextParts(tokenizer, left=False)
        self._contexts = TextParts(tokenizer, left=True) if self._left else self._queries

    def encode_batch(self, pairs: Sequence[tuple[str, str]]) -> list[PairTokens]:
        """Encode short pairs in one go, on several threads."""
        queries = list(dict.fromkeys(query for query, _ in pairs))
        texts = [*queries, *(context for _, context in pairs)]
        rows = [each.ids for each in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        of_query = dict(zip(queries, rows, strict=False))
        contexts = rows[len(queries) :]
        return [
            self._join(of_query[query], context) for (query, _), context in zip(pairs, contexts, strict=True)
        ]

    def encode_long(self, pairs: Sequence[tuple[str, str]]) -> list[PairTokens]:
        """Encode pairs of any length one after the other, so that the memory is that of one."""
        queries: dict[str, list[int]] = {}
        found = []
        for query, context in pairs:
            if query not in queries:
                queries[query] = self._read(self._queries, query, self._budget)
            room = self._budget - len(queries[query])
            # Without room, one token of the context tells as much as all of them.
            context_ids = self._read(self._contexts, context, room) if room >= 0 else []
            found.append(self._join(queries[query], context_ids))
        return found

    def _read(self, parts: TextParts, text: str, enough: int) -> list[int]:
        """Ids of all tokens of a text, or of more than ``enough`` of them from the side that is kept."""
        ids: list[int] = []
        for part in parts.of(text, FIRST_READ * max(1, enough)):
            # Not encode(): it keeps the interpreter's lock.
            ids = self._tokenizer.encode_batch_fast([part], add_special_tokens=False)[0].ids
            if len(ids) > enough:
                break
        return ids

    def _join(self, query: list[int], context: list[int]) -> PairTokens:
        room = self._budget - len(query)
        count = len(query) + len(context) + self.layout.special
        if len(context) <= room:
            return self.layout.join(query, context, count)
        if room < 1:
            return self.layout.join([], [], NO_ROOM)
        kept = context[-room:] if self._left else context[:room]
        return self.layout.join(query, kept, count)
