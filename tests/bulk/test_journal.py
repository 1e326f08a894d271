"""The journal: what it returns after any end, and what it refuses."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from bulk.errors import JournalError
from bulk.journal import WINDOW_ROWS, Finished, Journal

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


def test_a_row_that_was_asked_again_far_behind_its_place_is_found(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.journal", 3 * WINDOW_ROWS
    journal = Journal(path, IDENTITY)
    for number in range(rows):
        if number % 1000 != 5:
            journal.add([(number, [number])])
    journal.finish(Finished(13, 13, ""))
    journal = Journal(path, IDENTITY)
    missing = [number for number in range(rows) if journal.take(number) is None]
    assert missing == [number for number in range(rows) if number % 1000 == 5]
    for number in missing:
        journal.add([(number, [number])])
    journal.close()
    journal = Journal(path, IDENTITY)
    assert [journal.take(number) for number in range(rows)] == [[number] for number in range(rows)]
    assert not journal._held
    journal.close()


def test_it_knows_whether_its_run_came_to_its_end(tmp_path: Path) -> None:
    path, finished = tmp_path / "a.journal", Finished(3, 1, "utf-16")
    journal = Journal(path, IDENTITY)
    journal.add([(0, [0.5])])
    journal.finish(finished)
    journal = Journal(path, IDENTITY)
    assert journal.finished == finished
    assert journal.take(0) == [0.5]
    journal.add([(1, [0.5])])
    journal.close()
    journal = Journal(path, IDENTITY)
    assert journal.finished is None
    journal.close()
    with pytest.raises(JournalError, match="columns differ"):
        Journal(path, IDENTITY | {"columns": ["other"]}, replaces_finished=True)
    Journal(path, IDENTITY).finish(finished)
    with pytest.raises(JournalError, match="columns differ"):
        Journal(path, IDENTITY | {"columns": ["other"]})
    journal = Journal(path, IDENTITY | {"columns": ["other"]}, replaces_finished=True)
    assert (journal.take(0), journal.finished, journal.is_resumed) == (None, None, False)
    journal.close()


class FullDisk(io.FileIO):
    """Takes no more than half of what it is given, and beyond a size nothing."""

    room = 1 << 20

    def write(self, content: Any) -> int:
        if os.fstat(self.fileno()).st_size > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content[: len(content) // 2 + 1])


def test_a_disk_that_gets_full_costs_no_line_but_the_last(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = Journal(path, IDENTITY)
    journal._file.close()
    journal._file = disk = FullDisk(path, "ab")
    journal.add([(0, ["whole"])])
    disk.room = path.stat().st_size
    before = path.read_bytes()
    with pytest.raises(JournalError, match="No space left"):
        journal.add([(1, ["half"])])
    assert path.read_bytes() == before
    disk.room = 1 << 20
    journal.add([(2, ["later"])])
    journal.close()
    journal = Journal(path, IDENTITY)
    assert [journal.take(number) for number in range(3)] == [["whole"], None, ["later"]]
    journal.close()


@pytest.mark.parametrize("content", [b"my notes", b"my notes\nof today\n", b"\0" * 10])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.journal"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="is no journal of this program"):
        Journal(path, IDENTITY)
    assert path.read_bytes() == content
