"""What is asked: real sentences with their mix of lengths, and texts of an exact number of tokens."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

SPREAD = 0.4
"""Texts of about a number of tokens are shorter and longer by up to this share."""


def read_sentences(path: Path, limit: int = 512) -> list[str]:
    """At most ``limit`` evenly spread sentences of a TSV with a column ``text``."""
    with path.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file, delimiter="\t")]
    return [texts[place * len(texts) // limit] for place in range(limit)] if len(texts) > limit else texts


def token_lengths(tokenizer: Path, texts: Sequence[str], max_tokens: int = 512) -> list[int]:
    """Tokens that the model reads of each text, special ones included."""
    counted = Tokenizer.from_file(str(tokenizer))
    counted.no_padding()
    counted.enable_truncation(max_tokens)
    return [len(encoding) for encoding in counted.encode_batch_fast(list(texts))]


class ExactTexts:
    """Makes texts of a wanted number of tokens by repeating the words of real ones."""

    def __init__(self, tokenizer: Path, texts: Sequence[str]) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        words = list(dict.fromkeys(word for text in texts for word in text.split() if word.isalpha()))
        plain = self._tokenizer.encode_batch_fast(words, add_special_tokens=False)
        self._words = [(word, len(encoding)) for word, encoding in zip(words, plain, strict=True)]
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def make(self, tokens: int, count: int) -> list[str]:
        """``count`` different texts of exactly ``tokens`` tokens, special ones included.

        Raises:
            ValueError: this tokenizer does not count words one by one, or ``tokens`` is too small.
        """
        texts = [self._make(tokens, number * len(self._words) // count) for number in range(count)]
        if any(len(self._tokenizer.encode(text)) != tokens for text in texts):
            raise ValueError(f"no text of exactly {tokens} tokens could be made with this tokenizer")
        return texts

    def about(self, tokens: int, count: int, sets: int = 1, longest: int | None = None) -> list[list[str]]:
        """``sets`` lists of ``count`` texts with the same lengths, each list in an order of its own.

        Args:
            tokens: the middle of the lengths, which are spread evenly from 0.6 to 1.4 times as many.
            count: texts of a list.
            sets: lists.
            longest: none has more tokens, if given.

        Raises:
            ValueError: see `make`.
        """
        spread = [tokens * (1 - SPREAD + 2 * SPREAD * place / max(1, count - 1)) for place in range(count)]
        lengths = [min(round(length), longest or round(length)) for length in spread]
        made = {length: self.make(length, sets * lengths.count(length)) for length in set(lengths)}
        shuffled = random.Random(count)  # noqa: S311 (no secret)
        found = []
        for _ in range(sets):
            shuffled.shuffle(lengths)
            found.append([made[length].pop() for length in lengths])
        return found

    def _make(self, tokens: int, start: int) -> str:
        missing = tokens - self._special
        chosen: list[str] = []
        # A round through all words meets one of a single token, so this ends.
        for step in range(len(self._words) * max(1, missing)):
            word, size = self._words[(start + step) % len(self._words)]
            if size <= missing:
                chosen.append(word)
                missing -= size
            if missing <= 0:
                break
        return " ".join(chosen)
