"""A smaller WordPiece vocabulary: kept tokens keep their order, and so their embeddings can be copied."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FIRST_WORD = 1996  # BERT's vocabulary: specials, characters, then whole words, the most frequent first


def choose_tokens(tokenizer: Tokenizer, texts: Iterable[str], size: int) -> list[int]:
    """Old ids of the tokens to keep, ascending.

    Kept are the special tokens, every character below U+0250 alone and as a continuation (so that a
    word in Latin script falls apart, at worst, into letters and is never unknown), then by turns the
    most frequent tokens of ``texts`` and of English (BERT's own order) until there are ``size``.
    """
    vocabulary = tokenizer.get_vocab()
    names = {index: token for token, index in vocabulary.items()}
    kept = {vocabulary[token] for token in SPECIAL}
    kept |= {i for token, i in vocabulary.items() if _is_character(token)}
    counts: Counter[int] = Counter()
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        counts.update(encoding.ids)
    frequent = (i for i, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0])))
    english = (i for i in range(FIRST_WORD, len(names)))
    for index in (i for turn in zip_longest(frequent, english) for i in turn if i is not None):
        if len(kept) >= size:
            break
        kept.add(index)
    return sorted(kept)


def _is_character(token: str) -> bool:
    character = token.removeprefix("##")
    return len(character) == 1 and ord(character) < 0x250


def trim_tokenizer(source: Path, kept: list[int]) -> dict[str, Any]:
    """The document of ``tokenizer.json`` with the kept tokens only, numbered from 0 in the old order."""
    document: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    new = {old: i for i, old in enumerate(kept)}
    names = {index: token for token, index in document["model"]["vocab"].items()}
    document["model"]["vocab"] = {names[old]: i for old, i in new.items()}
    for token in document["added_tokens"]:
        token["id"] = new[token["id"]]
    for token in document["post_processor"]["special_tokens"].values():
        token["ids"] = [new[old] for old in token["ids"]]
    document["padding"] = document["truncation"] = None
    return document
