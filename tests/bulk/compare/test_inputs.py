"""Texts and old scores of a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulk.compare.answers import Side, SideAnswer
from bulk.compare.inputs import Inputs, read_inputs
from bulk.compare.journal import CompareJournal
from bulk.errors import JournalError, TableError
from bulk.tables import ReadOptions

SIDES = (Side("A", "http://a", "m"), Side("B", "http://b", "m"))


def read(
    tmp_path: Path, content: str, column: str | None = None, old_scores: str | None = None, **more: int
) -> Inputs:
    file = tmp_path / "texts.csv"
    file.write_text(content, encoding="utf-8")
    return read_inputs(file, ReadOptions(), column, old_scores, more.get("sample"))


def test_each_text_counts_once_and_keeps_its_row(tmp_path: Path) -> None:
    inputs = read(tmp_path, 'id,text\n1,"good\nfilm"\n2,\n3,bad\n4,"good\nfilm"\n')
    assert inputs.texts == ("good\nfilm", "bad")
    assert (inputs.rows, inputs.repeated, inputs.empty, inputs.column) == ((1, 3), 1, 1, "text")


def test_a_sample_is_the_same_each_time(tmp_path: Path) -> None:
    content = "text\n" + "".join(f"text {number}\n" for number in range(100))
    first = read(tmp_path, content, sample=10)
    assert first == read(tmp_path, content, sample=10)
    assert len(set(first.texts)) == 10
    assert list(first.rows) == sorted(first.rows)
    assert first.rows != tuple(range(1, 11))
    assert len(read(tmp_path, content, sample=1000).texts) == 100


def test_old_scores_are_read_beside_the_texts(tmp_path: Path) -> None:
    inputs = read(tmp_path, "text,old\na,0.25\nb,\nc,1\n", old_scores="old")
    assert (inputs.texts, inputs.old_scores, inputs.empty) == (("a", "c"), (0.25, 1.0), 1)


@pytest.mark.parametrize(
    ("content", "column", "old_scores", "reason"),
    [
        ("text,old\na,1.5\n", None, "old", "old score in row 1 is no number between 0 and 1"),
        ("text,old\na,nan\n", None, "old", "old score in row 1 is no number between 0 and 1"),
        ("text,old\na,high\n", None, "old", "old score in row 1 is no number between 0 and 1"),
        ("text,old\na,1\n", None, "older", "no column older"),
        ("text,old\na,1\n", "texts", None, "no column texts"),
        ('text,old\n"",1\n', "text", None, "has no text in the column text"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    tmp_path: Path, content: str, column: str | None, old_scores: str | None, reason: str
) -> None:
    with pytest.raises(TableError, match=reason):
        read(tmp_path, content, column, old_scores)


def test_a_stray_quote_is_refused_and_a_row_of_several_lines_is_said(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text('text\n"Great start\nb\nc "quoted\n')
    with pytest.raises(TableError, match="in line 4, text stands behind a closing quote"):
        read_inputs(file, ReadOptions(), None, None, None)
    inputs = read_inputs(file, ReadOptions(quoting="none"), None, None, None)
    assert inputs.texts == ('"Great start', "b", 'c "quoted')
    inputs = read(tmp_path, 'text,b\n"one\ntwo",1\n')
    assert inputs.description.endswith("UTF-8; 1 row has several lines within quotes (first: lines 2 to 3)")


GIVEN = SideAnswer(("P",), (0.5,), seconds=0.25, version="2")
TEXTS = ["a secret text", "b"]


def test_a_journal_keeps_what_was_answered_before_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with CompareJournal(path, SIDES, TEXTS) as journal:
        journal.add(0, 1, GIVEN)
        journal.add(1, 0, SideAnswer(error="no"))
    whole = path.read_bytes()
    assert b"secret" not in whole
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:-cut])
        with CompareJournal(path, SIDES, TEXTS) as journal:
            kept = [len(known) for known in journal.answers]
            journal.add(1, 1, GIVEN)
        lines = whole[:-cut].count(b"\n") - 1
        assert kept == [int(lines > 0), 0]
        with CompareJournal(path, SIDES, TEXTS) as journal:
            assert journal.answers[1] == {1: GIVEN}
    path.write_bytes(whole)
    with CompareJournal(path, SIDES, TEXTS) as journal:
        assert journal.answers == ({1: GIVEN}, {0: SideAnswer(error="no")})
        journal.remove()
    assert not path.exists()


def test_answers_of_a_server_stay_when_the_other_is_exchanged(tmp_path: Path) -> None:
    path, other = tmp_path / "journal", Side("B", "http://c", "m")
    for sides, kept in ((SIDES, [0, 0]), ((SIDES[0], other), [1, 0]), (SIDES, [1, 1])):
        with CompareJournal(path, sides, TEXTS) as journal:
            assert [len(known) for known in journal.answers] == kept
            journal.add(0, 0, GIVEN)
            journal.add(1, 0, GIVEN)


def test_a_journal_without_answers_stands_in_nobodys_way(tmp_path: Path) -> None:
    with CompareJournal(tmp_path / "journal", SIDES, TEXTS):
        pass
    assert not (tmp_path / "journal").exists()


def test_a_journal_of_something_else_or_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with CompareJournal(path, SIDES, ["a"]) as journal:
        journal.add(0, 0, GIVEN)
        with pytest.raises(JournalError, match="in use"):
            CompareJournal(path, SIDES, ["a"])
    for sides, texts in ((SIDES, ["b"]), (SIDES[::-1], ["a"]), (SIDES, ["a", "a"])):
        with pytest.raises(JournalError, match="earlier comparison of other texts"):
            CompareJournal(path, sides, texts)
    for content in ("something of mine\n", "mine", "{}\n"):
        path.write_text(content)
        with pytest.raises(JournalError):
            CompareJournal(path, SIDES, ["a"])
        assert path.read_text() == content
    with pytest.raises(JournalError, match="cannot be written"):
        CompareJournal(tmp_path / "none" / "journal", SIDES, ["a"])
