"""Pairs from Debian's package descriptions: the synopsis asks, the long description answers.

One binary package of each source package is kept, so that siblings (-dev, -doc, -data) are not taken for
wrong answers, and one of those with like texts. Sentences that repeat the synopsis word by word are
taken out of the description: no query stands in its answer as it is.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from training.rerank.apt import paragraphs
from training.rerank.pairs import Pair, contains, words

MIN_QUERY = 3  # words
MIN_TEXT = 12
_ALIKE = 12  # descriptions that start with the same words count as the same
_SIDE = re.compile(
    r"-(dev|doc|docs|dbg|dbgsym|data|common|examples|tests?|tools?|utils?|bin|l10n|i18n|locales?|themes?|plugins?|gir[\d.]*)$"
    r"|^(lib(?!rust-)|gir1\.2-|python3?-|ruby-|node-|r-cran-|golang-|libghc-|librust-)"
)
_BOILERPLATE = re.compile(
    r"^(this (dummy |meta)?package|this is (a|the) (dummy|transitional|meta)|the package)\b"
    r"|\b(transitional|dummy|metapackage|debcargo|feature[s]? of the rust)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")


@dataclass(frozen=True)
class Package:
    """One binary package: its name, its source package, and the two parts of its description."""

    name: str
    source: str
    synopsis: str
    description: tuple[str, ...]  # paragraphs


def read_packages(packages: str, translations: str) -> Iterator[Package]:
    """Join ``Packages`` (sources) with ``Translation-en`` (descriptions) by name and description."""
    sources = {p["Package"]: p.get("Source", p["Package"]).split()[0] for p in paragraphs(packages)}
    for fields in paragraphs(translations):
        name = fields["Package"]
        if name in sources:
            synopsis, _, rest = fields["Description-en"].partition("\n")
            blocks = re.split(r"\n \.(?=\n|$)", "\n" + rest)
            texts = (" ".join(block.split()) for block in blocks)
            yield Package(name, sources[name], synopsis.strip(), tuple(t for t in texts if t))


def query_of(package: Package) -> str:
    """The synopsis without remarks in brackets or after a dash, which tell siblings apart."""
    plain = re.sub(r"\s*[\(\[][^)\]]*[\)\]]", "", package.synopsis)
    return re.sub(r"\s+(-|--|–)\s+[\w ]{0,30}$", "", plain).strip(" .,;:")


def text_of(package: Package, query: str) -> str:
    """The description without paragraphs on packaging and without sentences that hold the query."""
    kept = (p for p in package.description if not _BOILERPLATE.search(p))
    sentences = (s for p in kept for s in _SENTENCE.split(p))
    return " ".join(s for s in sentences if not contains(s, query))


def synopsis_pairs(packages: Iterable[Package]) -> list[Pair]:
    """At most one pair of each source package, none with the query or the beginning of another's."""
    best: dict[str, tuple[tuple[bool, int, str], Pair]] = {}
    for package in packages:
        query = query_of(package)
        text = text_of(package, query)
        if len(words(query)) < MIN_QUERY or len(words(text)) < MIN_TEXT or _BOILERPLATE.search(query):
            continue
        rank = (
            package.name != package.source and bool(_SIDE.search(package.name)),
            len(package.name),
            package.name,
        )
        if package.source not in best or rank < best[package.source][0]:
            best[package.source] = (rank, Pair(query, text, package.source, "debian"))
    seen: set[tuple[str, ...]] = set()
    result = []
    for _, pair in (best[source] for source in sorted(best)):
        keys = {("q", *sorted(words(pair.query))), ("t", *words(pair.text)[:_ALIKE])}
        if seen.isdisjoint(keys):
            result.append(pair)
        seen |= keys
    return result


def sentence_pairs(pairs: Iterable[Pair], rng: random.Random) -> list[Pair]:
    """One sentence of a description as the query, the others as its text (inverse cloze)."""
    result = []
    pairs = list(pairs)
    counts = Counter(s for pair in pairs for s in set(_SENTENCE.split(pair.text)))
    for pair in pairs:
        # What stands in several descriptions belongs to none of them.
        sentences = [s for s in _SENTENCE.split(pair.text) if 5 <= len(words(s)) <= 25 and counts[s] == 1]
        whole = _SENTENCE.split(pair.text)
        if len(whole) < 3 or not sentences:
            continue
        chosen = rng.choice(sentences)
        rest = " ".join(s for s in whole if s != chosen)
        if len(words(rest)) >= MIN_TEXT:
            result.append(Pair(chosen.rstrip("."), rest, pair.group, "sentence"))
    return result
