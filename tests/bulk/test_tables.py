"""Tables: what comes in goes out unchanged, with columns behind it."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk.columns import TEXT_NAMES, find_column, free_prefix, guess_column
from bulk.errors import TableError
from bulk.tables import ReadOptions, Table, check_ending, open_table
from bulk.tables.delimited import find_delimiter

ADDED = ("label", "score", "truncated", "error")
AS_FOUND = ReadOptions()
VALUES = ("POSITIVE", 0.5, False, None)


def through(path: Path, options: ReadOptions = AS_FOUND, column: int = 0) -> tuple[bytes, list[str | None]]:
    """Read a file and write it again; return the output and the texts of rows that can be used."""
    source, table = open_table(path, options)
    with source.stream:
        output = io.BytesIO()
        writer = table.writer(output, ADDED)
        texts: list[str | None] = []
        for record in table.records([column]):
            if not record.is_blank and record.problem is None:
                texts.append(record.texts[0])
            writer.write(record, VALUES)
        writer.close()
    return output.getvalue(), texts


def table_of(path: Path, options: ReadOptions = AS_FOUND) -> Table:
    source, table = open_table(path, options)
    source.stream.close()  # the columns and samples are known
    return table


def test_the_text_of_a_csv_stays_as_it_was_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,"text",n\r\n1,"a ""q"" b\r\nnew, line",\r\n\r\n2,,""\r\n3,plain\n4,last')
    output, texts = through(path, column=1)
    assert output == (
        b'id,"text",n,label,score,truncated,error\r\n'
        b'1,"a ""q"" b\r\nnew, line",,POSITIVE,0.5,false,\r\n'
        b"\r\n"
        b'2,,"",POSITIVE,0.5,false,\r\n'
        b"3,plain,,POSITIVE,0.5,false,\n"
        b"4,last,,POSITIVE,0.5,false,\n"
    )
    assert texts == ['a "q" b\r\nnew, line', "", "plain", "last"]


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_any_cells_come_back_with_the_added_ones(rows: list[tuple[str, str]], end: str) -> None:
    import tempfile

    rows = [tuple(cell.replace("\0", "").encode("utf-8", "replace").decode() for cell in row) for row in rows]  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL)
            writer.writerows([("text", "b"), *rows])
        output, texts = through(path, ReadOptions(delimiter=",", encoding="utf-8"))
    found = list(csv.reader(io.StringIO(output.decode(), newline="")))
    assert [tuple(row) for row in found[1:]] == [(*row, "POSITIVE", "0.5", "false", "") for row in rows]
    assert texts == [row[0] for row in rows]


def test_a_row_with_too_many_cells_keeps_them_behind_the_added_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,b\nx,y,z\n")
    source, table = open_table(path, ReadOptions())
    with source.stream:
        record = next(table.records([0]))
    assert record.problem == "the row has 3 cells, and the header 2"
    assert through(path)[0].splitlines()[1] == b"x,y,POSITIVE,0.5,false,,z"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_are_found_and_kept(tmp_path: Path, encoding: str) -> None:
    text = "id;review\n" + "".join(f"{i};Größe – “café”, naïve {i}\n" for i in range(50))
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(encoding))
    output, texts = through(path, column=1)
    assert texts[3] == "Größe – “café”, naïve 3"
    mark = b"\xff\xfe" if encoding == "utf-16" else b""
    assert output.startswith(mark)
    assert output.decode(encoding).splitlines()[1] == "0;Größe – “café”, naïve 0;POSITIVE;0.5;false;"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("cp1251", "Отличная книга, читать всем. Очень понравилось, спасибо автору!")],
)
def test_other_alphabets_are_not_taken_for_cp1252(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join([text] * 50).encode(encoding))
    assert through(path)[1][0] == text


def test_bytes_that_come_after_the_beginning_decide_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\n" + b"all ascii\n" * 150_000 + "Größe\n".encode("cp1252"))
    assert through(path)[1][-1] == "Größe"


def test_a_file_that_is_not_in_the_given_encoding_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\n" + b"all ascii\n" * 150_000 + b"Gr\xf6\xdfe\n")
    with pytest.raises(TableError, match="byte 1500007 is not UTF-8"):
        table_of(path, ReadOptions(encoding="utf-8"))


def test_what_the_output_encoding_lacks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\nczołg\n", encoding="utf-8")
    with pytest.raises(TableError, match="cp1252 has no 'ł'"):
        through(path, ReadOptions(output_encoding="cp1252"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(delimiter: str) -> None:
    rows = [["id", "text", "n"]] + [
        [str(i), 'well, said "x"; so | ' + "and, " * (i % 4), ""] for i in range(20)
    ]
    sample = io.StringIO()
    csv.writer(sample, delimiter=delimiter).writerows(rows)
    assert find_delimiter(sample.getvalue()) == delimiter


def test_lines_become_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text('one, "two"\n\nthree')
    output, texts = through(path)
    assert texts == ['one, "two"', "", "three"]
    assert output.decode().splitlines()[:2] == [
        "text,label,score,truncated,error",
        '"one, ""two""",POSITIVE,0.5,false,',
    ]


def test_parquet_keeps_types_and_row_order(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    count = 20_000
    columns = {"n": list(range(count)), "review": [None if i == 5 else f"t{i}" for i in range(count)]}
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=3000)
    output, texts = through(path, column=1)
    assert texts == columns["review"]
    found = pyarrow.parquet.read_table(io.BytesIO(output))
    assert found.schema.names == ["n", "review", *ADDED]
    assert found.column("n").to_pylist() == columns["n"]
    types = {name: found.schema.field(name).type for name in ADDED}
    assert types == {
        "label": pyarrow.string(),
        "score": pyarrow.float64(),
        "truncated": pyarrow.bool_(),
        "error": pyarrow.string(),
    }
    assert found.column("score").to_pylist() == [0.5] * count


def test_a_column_is_guessed_by_its_name_and_else_by_its_length(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,Review,long\n1,ok,something much longer\n")
    assert guess_column(table_of(path), TEXT_NAMES, "a.csv") == 1
    path.write_text("id,x,y\n1,ok,something much longer\n")
    table = table_of(path)
    assert guess_column(table, TEXT_NAMES, "a.csv") == 2
    assert find_column(table, "x", "a.csv") == find_column(table, "2", "a.csv") == 1
    with pytest.raises(TableError, match="no column z; it has: id, x, y"):
        find_column(table, "z", "a.csv")


def test_added_columns_are_never_doubled(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label,predicted_label,predicted_2_score\nx,1,2,3\n")
    table = table_of(path)
    assert free_prefix(table, ["label", "score"], None) == "predicted_3_"
    assert free_prefix(table, ["score"], None) == ""
    assert free_prefix(table, ["label"], "my_") == "my_"
    for prefix in ("", "predicted_"):
        with pytest.raises(TableError, match=f"has a column {prefix}label already; name another --prefix"):
            free_prefix(table, ["label"], prefix)


def test_lists_of_strings_in_parquet_are_no_texts_and_dictionaries_are(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {"text": [["a", "b"]], "kind": pyarrow.array(["c"]).dictionary_encode(), "body": ["d"]}
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(TableError, match=r"the column text of .* holds no text"):
        through(path, column=0)
    assert through(path, column=1)[1] == ["c"]


def test_long_rows_of_parquet_are_read_few_at_once(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    blobs = [os.urandom(200_000) for _ in range(400)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 400, "blob": blobs}), path)
    source, table = open_table(path, ReadOptions())
    with source.stream:
        records = list(table.records([0]))
        assert max(len(record.source[0]) for record in records) < 200
        assert all(200_000 <= record.size < 201_000 for record in records)
    output = io.BytesIO(through(path)[0])
    assert pyarrow.parquet.read_table(output).column("blob").to_pylist() == blobs


@pytest.mark.parametrize(
    ("name", "content", "good", "bad"),
    [
        ("a.csv", "text,b\nx,y\n", ("b.csv", "b.txt", "b"), ("b.parquet", "b.tsv", "b.jsonl")),
        ("a.csv", "text\tb\nx\ty\n", ("b.csv", "b.tsv"), ("b.pq",)),
        ("a.jsonl", '{"text":"x"}\n', ("b.jsonl", "b.ndjson", "b.json"), ("b.csv",)),
        ("a.txt", "x\n", ("b.csv",), ("b.tsv", "b.jsonl")),
    ],
)
def test_an_output_has_the_format_that_its_ending_says(
    tmp_path: Path, name: str, content: str, good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    path = tmp_path / name
    path.write_text(content)
    table = table_of(path)
    for output in good:
        check_ending(Path(output), table)
    for output in bad:
        with pytest.raises(TableError, match=r"will not be of this format; end its name with \.(csv|jsonl)"):
            check_ending(Path(output), table)


@pytest.mark.parametrize(
    ("name", "line", "last"),
    [("a.csv", '"two\nlines"\n', '"open'), ("a.jsonl", '{"text":"a"}\n', '{"late":1}\n')],
)
def test_an_interruption_does_not_wait_for_the_end_of_a_file(
    tmp_path: Path, name: str, line: str, last: str
) -> None:
    path = tmp_path / name
    path.write_text(line * 4000 + last)
    looked = 0

    def stopped() -> bool:
        nonlocal looked
        looked += 1
        return looked == 3

    source, table = open_table(path, ReadOptions(), stopped)
    source.stream.close()
    assert (looked, list(table.late_columns)) == (3, [])
