"""Pairs from WordNet 3.0: a word or a question about it asks, its first definition answers.

They keep a model that is trained on software alone from forgetting everyday words.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from training.rerank.pairs import Pair, words

PACKAGE, VERSION = "wordnet-base", "1:3.0-37"
_KINDS = ("noun", "verb", "adj")
_FORMS = ("{}", "what is {}", "{} meaning", "definition of {}", "what does {} mean")


def wordnet_pairs(root: Path, known: Callable[[str], bool], rng: random.Random) -> list[Pair]:
    """One pair for each word (its most frequent sense) whose parts are all ``known``.

    The definition must not hold the word itself. ``root`` is the unpacked package.
    """
    folder = root / "usr/share/wordnet"
    result: dict[str, Pair] = {}
    for kind in _KINDS:
        glosses = _glosses(folder / f"data.{kind}")
        for line in _lines(folder / f"index.{kind}"):
            fields = line.split()
            lemma = fields[0].replace("_", " ")
            offset = fields[-int(fields[2])]  # the senses stand last, the most frequent first
            definition = glosses[offset]
            if lemma in result or not all(map(known, lemma.split())) or len(words(definition)) < 4:
                continue
            if set(words(lemma)).isdisjoint(words(definition)):
                query = rng.choice(_FORMS).format(lemma)
                result[lemma] = Pair(query, definition, f"wordnet:{lemma}", "wordnet")
    unique: dict[str, Pair] = {}
    for pair in result.values():
        unique.setdefault(pair.text, pair)
    return list(unique.values())


def _lines(file: Path) -> list[str]:
    """All but the licence, whose lines start with two spaces."""
    return [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("  ")]


def _glosses(file: Path) -> dict[str, str]:
    return {line.split(" ", 1)[0]: line.partition(" | ")[2].strip() for line in _lines(file)}
