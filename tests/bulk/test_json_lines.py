"""JSON Lines: which keys are columns, and what is written."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from bulk.columns import TEXT_NAMES, find_column, free_prefix, guess_column
from bulk.errors import TableError
from bulk.tables import ReadOptions, open_table
from tests.bulk.test_tables import table_of, through


def test_json_lines_keep_their_text_and_get_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a",  "n": 1.0}\n\nbroken\n{}\n{"text": 7}\n{"text":"b","label":"old"}')
    output, texts = through(path)
    lines = output.decode().split("\n")
    more = '"label":"POSITIVE","score":0.5,"truncated":false,"error":null}'
    assert lines[0] == '{"text": "a",  "n": 1.0, ' + more
    assert lines[1] == ""
    assert json.loads(lines[2])["input"] == "broken"
    assert lines[3] == "{" + more
    assert json.loads(lines[5])["input"] == {"text": "b", "label": "old"}
    assert texts == ["a", None, "b"]


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0b"])
def test_a_line_ends_where_lines_end_and_not_within_a_string(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": f"a{separator}b"}, ensure_ascii=False)
    path.write_text(f"{line}\n" * 3, encoding="utf-8")
    table = table_of(path)
    assert list(table.columns) == ["text"]
    assert guess_column(table, TEXT_NAMES, "a") == 0


def test_a_first_line_that_is_longer_than_the_sample_has_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"n": 1, "text": "long " * 300_000}) + "\n")
    table = table_of(path)
    assert find_column(table, "text", "a") == guess_column(table, TEXT_NAMES, "a") == 1


def test_a_key_that_comes_late_can_be_named_and_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"review":"a"}\n' * 200 + '{"text":"late","label":"old"}\n')
    source, table = open_table(path, ReadOptions())
    with source.stream:
        assert guess_column(table, TEXT_NAMES, "a") == 0
        assert free_prefix(table, ["label"], None) == "predicted_"
        with pytest.raises(TableError, match="no column txt; it has: review"):
            find_column(table, "txt", "a")
        place = find_column(table, "text", "a")
        assert table.columns[place] == "text"
        texts = [record.texts[0] for record in table.records([place])]
    assert texts == [None] * 200 + ["late"]


def test_of_a_pipe_the_first_line_is_waited_for_and_any_key_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    line = json.dumps({"review": "long " * 100_000}).encode()
    first, rest = line[:100], line[100:]

    opened = threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(first)
            threading.Event().wait(0.2)
            pipe.write(rest + b"\n")
            opened.wait(10)
            pipe.write(b'{"text":"late"}\n')

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    source, table = open_table(path, ReadOptions())
    opened.set()
    with source.stream:
        assert list(table.columns) == ["review"]
        places = [0, find_column(table, "text", "pipe")]
        assert [len(record.texts[0] or "") for record in table.records(places)] == [500_000, 0]
    writing.join(5)


def test_numbers_that_python_writes_are_read_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text":"a","x":NaN}\n{"text":"b","x":[-Infinity],"label":"old"}\n')
    output, texts = through(path)
    assert texts == ["a", "b"]
    lines = output.decode().splitlines()
    assert lines[0].startswith('{"text":"a","x":NaN, "label":"POSITIVE"')
    assert lines[1].startswith('{"input":{"text":"b","x":[-Infinity],"label":"old"},"label":"POSITIVE"')
