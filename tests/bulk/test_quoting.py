"""Quotes in CSV and TSV: rows in and out are equal, or the file is refused before anything is asked."""

from __future__ import annotations

import csv
import io
import os
import threading
from pathlib import Path

import pytest

from bulk.errors import TableError
from bulk.tables import ReadOptions
from tests.bulk.test_tables import table_of, through

NONE, CSV = ReadOptions(quoting="none"), ReadOptions(quoting="csv")
STRAY = '1\t"Great start\n2\tb\n3\tc "quoted\n4\td" end\n5\te\n'


def test_a_stray_quote_is_refused_at_once_and_the_way_out_keeps_every_row(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("id\ttext\n" + STRAY)
    with pytest.raises(TableError) as caught:
        table_of(path)
    assert str(caught.value) == (
        f"{path}: in line 4, text stands behind a closing quote of a row that begins in line 2; write a "
        "quote within a quoted cell twice, or add --quoting none if quotes are plain characters in this file"
    )
    output, texts = through(path, NONE, column=1)
    assert texts == ['"Great start', "b", 'c "quoted', 'd" end', "e"]
    assert output.decode().splitlines()[1:] == [
        f"{line}\tPOSITIVE\t0.5\tfalse\t" for line in STRAY.splitlines()
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('text,b\nx,y\nz,"open\nmore\n', "a quote in line 3 is not closed before the end of the file"),
        # The number of quotes is even, and yet what is appended would stand within one.
        ('text,b\nx,y\n5" pipe,"bad quote', "a quote in line 3 is not closed before the end of the file"),
        ('text,b\n"Great" start,y\n', "in line 2, text stands behind a closing quote; write"),
    ],
)
def test_a_malformed_file_is_refused_before_anything_is_asked(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(TableError, match="--quoting none") as caught:
        table_of(path)
    assert words in str(caught.value)
    rows = len(content.splitlines()) - 1
    assert len(through(path, NONE)[1]) == rows


def test_a_quote_that_is_not_closed_in_a_large_file_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulk.tables.quoting.MAX_RECORD", 1000)
    path = tmp_path / "a.csv"
    path.write_text('text\n"open\n' + "line\n" * 1000)
    with pytest.raises(TableError, match=r"a quote in line 2 is not closed within 1,000 characters"):
        table_of(path)


def test_lines_that_are_rows_by_their_tabs_are_not_merged_by_two_stray_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('id\ttext\n1\tx\n2\t"Great\n\n3\tnot so good"\n')
    with pytest.raises(TableError, match=r"lines 3 to 5 are one row by their quotes, and several by their"):
        table_of(path)
    assert through(path, NONE, column=1)[1] == ["x", '"Great', 'not so good"']
    assert through(path, CSV, column=1)[1] == ["x", "Great\n\n3\tnot so good"]


def test_rows_of_several_lines_are_said_because_a_quote_may_have_merged_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"Great\n2,b good"\n3,c\n4,"two\n\nlines"\n')
    assert table_of(path).remark == "2 rows have several lines within quotes (first: lines 2 to 3)"
    assert len(through(path, column=1)[1]) == 3
    assert table_of(path, NONE).remark is None
    tsv = tmp_path / "a.tsv"
    tsv.write_text('id\ttext\n1\t"two\nlines"\n')
    assert table_of(tsv).remark == "1 row has several lines within quotes (first: lines 2 to 3)"


def test_without_quoting_an_added_cell_cannot_begin_a_new_one(tmp_path: Path) -> None:
    from bulk.tables import open_table

    path = tmp_path / "a.csv"
    path.write_text('text,b\n"x,y,z\n')
    source, table = open_table(path, NONE)
    output = io.BytesIO()
    with source.stream:
        writer = table.writer(output, ["label", "error"])
        for record in table.records([0]):
            writer.write(record, [None, record.problem])
    assert output.getvalue() == b'text,b,label,error\n"x,y,,the row has 3 cells  and the header 2,z\n'


def test_a_pipe_is_refused_where_the_row_comes(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = b"id\ttext\n" + b"0\ta\n" * 10 + STRAY.encode()
    writing = threading.Thread(target=path.write_bytes, args=(content,), daemon=True)
    writing.start()
    with pytest.raises(TableError, match="in line 14, text stands behind a closing quote"):
        through(path, ReadOptions(format="tsv", encoding="utf-8"), column=1)
    writing.join(5)


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_well_formed_files_of_any_kind_keep_their_rows(tmp_path: Path, delimiter: str) -> None:
    cells = ['5" pipe', '"', '""', 'a "q" b', "two\nlines", "a\r\nb", f"x{delimiter}y", "", " ", "'"]
    rows = [[first, second] for first in cells for second in cells]
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([["text", "b"], *rows])
    output, texts = through(path)
    assert texts == [row[0] for row in rows]
    found = list(csv.reader(io.StringIO(output.decode(), newline=""), delimiter=delimiter, strict=True))
    assert [row[:2] for row in found[1:]] == rows
