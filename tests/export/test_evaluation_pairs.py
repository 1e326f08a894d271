"""Pairs to evaluate a reranker on: files, and the exporter's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.errors import ExamplesError
from export.evaluation.data import Columns, Examples
from export.evaluation.pair_data import load_pairs
from export.samples import HELDOUT, OWN_PAIRS, TEXTS_PER_QUERY, default_pairs, own_pairs

ROWS = [("cats", "a cat", "1"), ("dogs", "a dog", "0"), ("cats", "a fish", "0")]


def load(tmp_path: Path, content: str, name: str = "pairs.csv") -> Examples:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    return load_pairs(file)


def check(found: Examples) -> None:
    assert found.pairs == tuple((query, text) for query, text, _ in ROWS)
    assert found.groups == ((0, 2), (1,))
    assert found.targets is not None
    assert found.targets.tolist() == [[True], [False], [False]]


def test_rows_of_one_query_are_a_group_in_every_format(tmp_path: Path) -> None:
    check(load(tmp_path, "query,text,label\n" + "".join(",".join(row) + "\n" for row in ROWS)))
    check(
        load(
            tmp_path, "id\tlabel\ttext\tquery\n" + "".join(f"7\t{c}\t{b}\t{a}\n" for a, b, c in ROWS), "a.tsv"
        )
    )
    lines = [json.dumps({"query": a, "text": b, "label": int(c)}) for a, b, c in ROWS]
    check(load(tmp_path, "\n".join(lines), "a.jsonl"))


def test_labels_are_optional(tmp_path: Path) -> None:
    assert load(tmp_path, "query,text\nq,a\nq,b\n").targets is None
    assert (
        load(tmp_path, '{"query": "q", "text": "a"}\n{"query": "q", "text": "b"}\n', "a.jsonl").targets
        is None
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            "text,label\na,1\n",
            r"line 1: no column 'query' among those found .* name query and text, or",
        ),
        ("query,text,label\nq,a,2\nq,b,0\n", r"line 2: label is '2'; it must be 1 .* Leave the column out"),
        ("query,text,label\nq,a,\nq,b,0\n", "line 2: label is ''"),
        ("query,text\n,a\n", "line 2: query must be a string that is not empty"),
        ("query,text\nq,\n", "line 2: text must be a string that is not empty"),
        ("query,text\nq,a\nr,b\n", "one text for each query"),
        ("query,text\n", "holds no pairs"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(tmp_path: Path, content: str, why: str) -> None:
    with pytest.raises(ExamplesError, match=why):
        load(tmp_path, content)


def test_some_labels_are_worse_than_none(tmp_path: Path) -> None:
    lines = '{"query": "q", "text": "a", "label": true}', '{"query": "q", "text": "b"}'
    with pytest.raises(ExamplesError, match="label is True"):
        load(tmp_path, "\n".join(lines), "a.jsonl")
    with pytest.raises(ExamplesError, match="line 2: label stands in some rows only"):
        load(tmp_path, "\n".join(lines).replace("true", "1"), "a.jsonl")


def test_our_own_pairs_are_always_the_same_and_of_all_lengths(tmp_path: Path) -> None:
    found = default_pairs(tmp_path)
    assert found == own_pairs()
    assert (found.source, found.targets) == (OWN_PAIRS, None)
    assert len(found.texts) >= 200
    assert {len(group) for group in found.groups} == {TEXTS_PER_QUERY}
    assert all(len({found.texts[place] for place in group}) == len(group) for group in found.groups)
    words = [len(text.split()) for text in found.texts]
    assert min(words) < 4
    assert max(words) > 500


def test_pairs_beside_the_checkpoint_come_first(tmp_path: Path) -> None:
    (tmp_path / HELDOUT).write_text("query\ttext\nq\ta\nq\tb\n")
    assert default_pairs(tmp_path).pairs == (("q", "a"), ("q", "b"))


def test_the_text_of_a_pair_may_stand_in_any_column(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("query,passage,good,text\nq,a,1,x\nq,b,0,y\n")
    examples = load_pairs(file, Columns("passage", "good"))
    assert examples.pairs == (("q", "a"), ("q", "b"))
    assert examples.targets is not None
    assert examples.targets[:, 0].tolist() == [True, False]
    with pytest.raises(ExamplesError, match="must differ, and from query"):
        load_pairs(file, Columns("query"))
