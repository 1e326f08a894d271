"""The journal: what it returns after any end, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulk.errors import JournalError
from bulk.journal import WINDOW_ROWS, Journal

IDENTITY = {"input": "abc", "columns": ["text"]}


def test_answers_come_back_whatever_their_order_and_wherever_the_file_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = Journal(path, IDENTITY)
    ends = [path.stat().st_size]
    order = [3, 0, 2, 1, 5, 4]
    for number in order:
        journal.add([(number, ["x", number / 3, False, None])])
        ends.append(path.stat().st_size)
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        journal = Journal(path, IDENTITY)
        noted = order[: max(0, sum(end <= cut for end in ends) - 1)]
        found = {number: journal.take(number) for number in range(6)}
        assert found == {n: ["x", n / 3, False, None] if n in noted else None for n in range(6)}
        journal.add([(9, ["more"])])
        journal.close()
        journal = Journal(path, IDENTITY)
        assert [journal.take(number) for number in range(10)][9] == ["more"]
        journal.close()


def test_a_row_that_is_missing_makes_it_read_no_further_than_the_window(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.journal", 5 * WINDOW_ROWS
    journal = Journal(path, IDENTITY)
    for number in range(1, rows):
        journal.add([(number, [number])])
    journal.close()
    journal = Journal(path, IDENTITY)
    assert journal.take(0) is None
    assert len(journal._held) <= WINDOW_ROWS + 1
    assert [journal.take(number) for number in range(1, rows)] == [[number] for number in range(1, rows)]
    journal.close()


def test_another_input_and_other_options_are_refused_with_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    Journal(path, IDENTITY).close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="the input has changed"):
        Journal(path, IDENTITY | {"input": "other"})
    with pytest.raises(JournalError, match="columns differ"):
        Journal(path, IDENTITY | {"columns": ["other"]})
    assert path.read_bytes() == before


def test_two_runs_cannot_share_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.journal", IDENTITY)
    with pytest.raises(JournalError, match="another run is writing"):
        Journal(tmp_path / "a.journal", IDENTITY)
    journal.remove()
    assert not (tmp_path / "a.journal").exists()


def test_a_damaged_line_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = Journal(path, IDENTITY)
    journal.add([(0, [0.25])])
    journal.close()
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.75"))
    journal = Journal(path, IDENTITY)
    assert journal.take(0) is None
    journal.close()
