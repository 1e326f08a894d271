"""Pairs of query and text that the reranker is trained and judged on."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from training.rerank.apt import paragraphs
from training.rerank.debian import read_packages, sentence_pairs, synopsis_pairs
from training.rerank.pairs import Pair, contains, split_of, words
from training.rerank.wordnet import wordnet_pairs

PACKAGES = """\
Package: duplo
Version: 1.0

Package: duplo-doc
Source: duplo

Package: libduplo-dev
Source: duplo (1.0)

Package: twin
Source: twin

Package: solo
Source: solo-src
"""

LONG = "It reads folders one after the other and lists every file that stands more than once on the disk."


def translation(name: str, synopsis: str, *blocks: str) -> str:
    return (
        f"Package: {name}\nDescription-md5: 0\nDescription-en: {synopsis}\n "
        + "\n .\n ".join(blocks)
        + "\n\n"
    )


def pairs_of(*translations: str) -> list[Pair]:
    return synopsis_pairs(read_packages(PACKAGES, "".join(translations)))


def test_a_source_package_gives_one_pair_from_its_main_package() -> None:
    pairs = pairs_of(
        translation("duplo-doc", "finder of duplicate files (documentation)", LONG + " Manual."),
        translation("duplo", "finder of duplicate files", LONG),
        translation("libduplo-dev", "finder of duplicate files - headers", LONG + " Headers."),
    )
    assert pairs == [Pair("finder of duplicate files", LONG, "duplo", "debian")]


def test_of_packages_with_like_texts_or_queries_one_is_kept() -> None:
    duplo = translation("duplo", "finder of duplicate files", LONG)
    same_text = translation("twin", "another kind of search", LONG + " It is fast.")
    same_query = translation("solo", "Finder of files, duplicate", "Twelve words that stand here say " * 3)
    assert [p.group for p in pairs_of(duplo, same_text)] == ["duplo"]
    assert [p.group for p in pairs_of(duplo, same_query)] == ["duplo"]


def test_sentences_that_repeat_the_query_are_taken_out_of_the_text() -> None:
    said = "Solo is a player of quiet songs, and so on."
    (pair,) = pairs_of(translation("solo", "player of quiet songs", said + " " + LONG))
    assert pair.text == LONG
    assert not contains(pair.text, pair.query)


def test_paragraphs_about_packaging_are_left_out() -> None:
    (pair,) = pairs_of(
        translation("solo", "player of quiet songs", LONG, "This package contains the shared library.")
    )
    assert pair.text == LONG


@pytest.mark.parametrize(
    ("synopsis", "blocks"),
    [
        ("two words", (LONG,)),
        ("player of quiet songs", ("Too short.",)),
        ("transitional package for quiet songs", (LONG,)),
    ],
)
def test_pairs_that_say_too_little_are_left_out(synopsis: str, blocks: tuple[str, ...]) -> None:
    assert pairs_of(translation("solo", synopsis, *blocks)) == []


def test_continued_lines_belong_to_their_field() -> None:
    assert list(paragraphs("A: 1\n two\n\nB: 3\n")) == [{"A": "1\n two"}, {"B": "3"}]


def test_all_that_shares_a_group_stands_on_one_side_and_the_sides_have_their_sizes() -> None:
    groups = [f"source-{i}" for i in range(10_000)]
    assert all(Pair("q", "t", g, "debian").split == Pair("x", "y", g, "sentence").split for g in groups)
    sizes = [sum(split_of(g) == side for g in groups) / len(groups) for side in ("heldout", "dev", "train")]
    assert sizes == pytest.approx([0.12, 0.03, 0.85], abs=0.01)


def test_a_sentence_asks_for_the_rest_of_its_description() -> None:
    shared = "This sentence stands in both of the descriptions."
    own = ("It plays quiet songs from many countries.", "It stops when you fall asleep at last.")
    others = ("It sorts your stamps by land and year.", "It prints them on paper with a border.")
    pairs = [Pair("a b c", " ".join((*own, shared)), "one", "debian")]
    pairs.append(Pair("d e f", " ".join((*others, shared)), "two", "debian"))
    found = sentence_pairs(pairs, random.Random(3))
    assert [p.group for p in found] == ["one", "two"]
    for pair, sentences in zip(found, (own, others), strict=True):
        assert pair.query + "." in sentences
        assert pair.query not in pair.text
        assert shared in pair.text


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    folder = tmp_path / "usr/share/wordnet"
    folder.mkdir(parents=True)
    for kind in ("verb", "adj"):
        (folder / f"data.{kind}").write_text("")
        (folder / f"index.{kind}").write_text("")
    (folder / "data.noun").write_text(
        "  1 The licence  \n"
        '00000010 06 n 02 dog 0 hound 0 000 | a domestic animal that barks; "the dog barked"\n'
        "00000020 06 n 01 hound 0 000 | an animal with four legs that hunts\n"
        "00000030 06 n 01 dog 0 000 | a person who is not liked by others\n"
    )
    (folder / "index.noun").write_text(
        "  1 The licence  \n"
        "dog n 2 1 @ 2 1 00000010 00000030  \n"
        "guard_dog n 1 1 @ 1 1 00000030  \n"
        "hound n 2 1 @ 2 1 00000020 00000010  \n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        # The definition of dog says dog; that of a guard dog is the sense that stands first.
        (lambda word: True, {"guard dog": "a person", "hound": "an animal"}),
        (lambda word: word != "guard", {"hound": "an animal"}),
    ],
)
def test_a_word_asks_for_its_first_definition(
    wordnet: Path, known: Callable[[str], bool], wanted: dict[str, str]
) -> None:
    pairs = wordnet_pairs(wordnet, known, random.Random(1))
    assert {p.group.removeprefix("wordnet:") for p in pairs} == set(wanted)
    for pair in pairs:
        lemma = pair.group.removeprefix("wordnet:")
        assert pair.text.startswith(wanted[lemma])
        assert set(words(lemma)) <= set(words(pair.query))
