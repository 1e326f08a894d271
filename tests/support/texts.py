"""Deterministic texts for the tests: sentences of a wanted length, and hostile ones."""

from __future__ import annotations

import csv
import random
from functools import cache
from pathlib import Path

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "minilm-sst2"


@cache
def sentences() -> tuple[str, ...]:
    """The bundled held-out sentences."""
    with (CHECKPOINT / "heldout.tsv").open(newline="", encoding="utf-8") as file:
        return tuple(row["text"] for row in csv.DictReader(file, delimiter="\t"))


def texts_of_words(count: int, longest: int, seed: int) -> list[str]:
    """``count`` texts whose numbers of words spread evenly over 1…``longest``."""
    rng = random.Random(seed)
    words = " ".join(sentences()).split()
    sizes = [1 + i * (longest - 1) // (count - 1) for i in range(count)]
    starts = [rng.randrange(len(words) - size) for size in sizes]
    return [" ".join(words[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


_ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz      ",
    "ABCXYZäöüßéèñçøåžłı İ ŉ ǆ ﬁ ﬀ ",
    "这个披萨很好吃有点贵素晴らしい한국어テスト ",
    "😀😡👍🏽🇩🇪👨‍👩‍👧‍👦❤️🏳️‍🌈🍕 ",
    "e\u0301\u0302\u0303a\u0308o\u0336\u20d0n\u0330 ",
    "\x00\x01\x07\x1b\x7f\x80\x9f\u200b\u200d\u00ad\ufeff\u2028\u202e\t\r\n ",
    "0123456789.,;:!?-–—…()[]{}<>@#$%^&*_+=|\\/'\"`~ ",
    "العربية עברית ไทย हिन्दी Ελληνικά Кириллица ",
    "\ufffd\ue000\U000f0000\U0010ffff\ufdd0 ",
)


def hostile_texts(count: int, seed: int) -> list[str]:
    """Random mixtures of scripts, emoji, combining marks and control characters, never empty."""
    rng = random.Random(seed)
    fixed = [
        " ", "\u00a0", "\u200b", "\u00ad\u200d", "\x00", "\n\n\n", "\ufeff",
        "[CLS]", "[SEP] [PAD] [MASK] [UNK] [cls]", "##ing", "a" * 99, "a" * 100, "a" * 101, "a" * 5_000,
        "word " * 10_000, "\U0001f355" * 2_000, "e" + "\u0301" * 3_000, "披" * 1_500, "A" + "\u030a",
    ]  # fmt: skip
    while len(fixed) < count:
        alphabets = rng.sample(_ALPHABETS, rng.randint(1, 4))
        size = int(rng.paretovariate(0.9) * 4)
        fixed.append("".join(rng.choice(rng.choice(alphabets)) for _ in range(min(size, 3_000))))
    return fixed[:count]


def few_examples(folder: Path) -> Path:
    """A file in ``folder`` with the first 39 held-out texts, for an export that need not ask about all."""
    few = folder / "few.tsv"
    few.write_text("".join((CHECKPOINT / "heldout.tsv").read_text(encoding="utf-8").splitlines(True)[:40]))
    return few
