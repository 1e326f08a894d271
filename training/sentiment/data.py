"""Sentences with mean human ratings, from a PyPI package.

``vaderSentiment`` 3.3.2 (MIT) carries four sets rated by about twenty people each on −4…4
(Hutto & Gilbert, ICWSM 2014).
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from training.packages import DataError, fetch

VADER = "vaderSentiment==3.3.2"
VADER_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"

SOURCES = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
    "tweet": "tweets_GroundTruth.txt",
}
STRONG = 0.5  # ratings closer to zero than this have no label in the evaluation
_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_LEXICON = "vaderSentiment-3.3.2/vaderSentiment/vader_lexicon.txt"


@dataclass(frozen=True)
class Sentence:
    """One sentence, its mean rating in [−4, 4], its source and its part of the split."""

    text: str
    rating: float
    source: str
    split: str

    @property
    def label(self) -> int | None:
        """1 for positive, 0 for negative, None where people did not agree on either."""
        if abs(self.rating) <= STRONG:
            return None
        return int(self.rating > 0)


def split_of(text: str) -> str:
    """Split by a hash of the sentence's letters and digits: 10 % held-out, 10 % dev, the rest train.

    The hash ignores case, spacing and punctuation, so a sentence and its near-copy never stand
    on different sides.
    """
    key = re.sub(r"[^a-z0-9]+", " ", text.casefold()).strip()
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 100
    return "heldout" if bucket < 10 else "dev" if bucket < 20 else "train"


def load_sentences(cache: Path) -> list[Sentence]:
    """All four rating sets, in file order, exact repeats dropped."""
    package = fetch(VADER, VADER_SHA256, cache, source=True)
    rated: list[Sentence] = []
    with tarfile.open(fileobj=io.BytesIO(_member(package, _ARCHIVE))) as archive:
        for source, name in SOURCES.items():
            file = archive.extractfile(f"hutto_ICWSM_2014/{name}")
            if file is None:
                raise DataError(f"{package.name} holds no {name}.")
            for line in file.read().decode("utf-8").splitlines():
                _, rating, text = line.split("\t", 2)
                rated.append(_sentence(html.unescape(text), float(rating), source))
    return list({s.text: s for s in reversed(rated) if s.text}.values())[::-1]


def load_lexicon(cache: Path) -> list[Sentence]:
    """The package's rated words and emoticons, as one-word sentences for training.

    Words that the split puts on the held-out side stay out of training like sentences do.
    """
    lines = _member(fetch(VADER, VADER_SHA256, cache, source=True), _LEXICON).decode("utf-8").splitlines()
    fields = (line.split("\t") for line in lines)
    return [_sentence(word, float(rating), "lexicon") for word, rating, *_ in fields]


def _member(package: Path, name: str) -> bytes:
    with tarfile.open(package) as archive:
        file = archive.extractfile(name)
        if file is None:
            raise DataError(f"{package.name} holds no {name}.")
        return file.read()


def _sentence(text: str, rating: float, source: str) -> Sentence:
    text = " ".join(text.split())
    return Sentence(text, rating, source, split_of(text))
