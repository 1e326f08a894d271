from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.errors import ExamplesError
from export.evaluation.data import MULTI_LABEL, Columns, Examples, load_examples
from export.samples import HELDOUT, default_examples, own_texts
from tests.support.texts import CHECKPOINT

SINGLE = "single_label_classification"
LABELS = ("NEGATIVE", "POSITIVE")
MOODS = ("joy", "anger", "fear")


def load(
    folder: Path,
    content: str | bytes,
    name: str = "eval.csv",
    labels: tuple[str, ...] = LABELS,
    problem_type: str = SINGLE,
) -> Examples:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_examples(file, labels, problem_type)


def found(examples: Examples) -> list[tuple[str, list[int]]]:
    assert examples.targets is not None
    return [(t, row.nonzero()[0].tolist()) for t, row in zip(examples.texts, examples.targets, strict=True)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'id,label,text\n7,positive,"good, really"\n8,0,"bad\nday"\n'),
        ("a.CSV", '\ufeffid,label,text\r\n7,POSITIVE,"good, really"\r\n8,Negative,"bad\nday"\r\n'),
        ("a.tsv", 'text\tlabel\ngood, really\t1\n"bad\nday"\tnegative\n\n'),
        (
            "a.jsonl",
            '{"text": "good, really", "label": "positive"}\n\n{"label": 0, "text": "bad\\nday", "x": []}',
        ),
    ],
)
def test_every_format_gives_the_same_examples(tmp_path: Path, name: str, content: str) -> None:
    assert found(load(tmp_path, content, name)) == [("good, really", [1]), ("bad\nday", [0])]


def test_texts_of_several_labels_are_read_from_both_formats(tmp_path: Path) -> None:
    table = load(tmp_path, "text,label\na,joy|Fear\nb,\nc,1\n", labels=MOODS, problem_type=MULTI_LABEL)
    lines = '{"text":"a","label":["fear",0]}\n{"text":"b","label":[]}\n{"text":"c","label":"anger"}'
    objects = load(tmp_path, lines, "x.jsonl", labels=MOODS, problem_type=MULTI_LABEL)
    assert found(table) == found(objects) == [("a", [0, 2]), ("b", []), ("c", [1])]


def test_a_name_goes_before_an_index_and_its_own_case_before_the_other(tmp_path: Path) -> None:
    labels = ("1", "0", "up|down", "a", "A")
    examples = load(tmp_path, "text,label\nx,1\nx,0\nx,2\nx,up|down\nx,a\nx,A\n", labels=labels)
    assert [indices for _, indices in found(examples)] == [[0], [1], [2], [2], [3], [4]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"line 1: no column 'text' among those found \(none\)"),
        ("a.csv", "text,label\n", "a.csv holds no texts"),
        ("a.jsonl", "\n\n", "a.jsonl holds no texts"),
        (
            "a.csv",
            "sentence,label\nx,1\n",
            r"line 1: no column 'text' among those found \('sentence', 'label'\); .* or --text-column",
        ),
        (
            "a.csv",
            "text;label\nx;1\n",
            r"\('text;label'\); .* by semicolons, .* save it with commas\.",
        ),
        ("a.csv", "text\tlabel\nx\t1\n", "separated by tabs, .* must have commas: call it .tsv"),
        ("a.tsv", "text,label\nx,1\n", "separated by commas, .* must have tabs: call it .csv"),
        ("a.csv", ",".join("abcdefghijklmn") + "\n", r"'i', 'j' and 4 more\)"),
        ("a.csv", '"text,label\nx,1\n', "line 1: unexpected end of data"),
        ("a.csv", "x" * 140_000, "line 1: a text of more than 131072 characters"),
        ("a.csv", "x" * 500 + "\ny\n", f"'{'x' * 39}…'"),
        (
            "a.csv",
            "text,label\nx,1\ny,meh\n",
            "line 3: 'meh' is no label of this model; known are NEGATIVE, POS",
        ),
        ("a.csv", "text,label\nx,2\n", "line 2: '2' is no label"),
        ("a.csv", "text,label\nx,\n", "line 2: 0 labels"),
        ("a.csv", "text,label\nx\n", "line 2: more or fewer columns"),
        ("a.csv", "text,label\nwell, good,1\n", "line 2: more or fewer columns"),
        ("a.csv", "text,label\n,1\n", "line 2: text must be a string"),
        ("a.tsv", 'text\tlabel\n"It" was\t1\nfine\t1\n', "line 2: .* put texts that hold quotation marks"),
        ("a.tsv", 'text\tlabel\nfine\t1\n"It was\t1\nfine\t1\n', "line 3: unexpected end of data"),
        ("a.csv", b"text,label\nx,1\n\xe9t\xe9,1\n", "line 3: not UTF-8"),
        ("a.jsonl", '{"text":"x","label":0}\n{"text":', "line 2: not JSON"),
        ("a.csv", f"text,label\nx,1\n{'x' * 140_000},1\n", "line 3: a text of more than 131072 characters"),
        ("a.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", '["x", 1]', "line 1: no object; every line is one with text"),
        ("a.jsonl", '{"x":"x","y":1}', r"no key 'text' among those found \('x', 'y'\); .* or --text-column"),
        ("a.jsonl", '{"text":"x","label":0}\n{"text":"y"}', "line 2: label stands in some rows only"),
        ("a.jsonl", '{"text":"x"}\n{"text":"y","label":0}', "line 2: label stands in some rows only"),
        ("a.jsonl", '{"text":7,"label":0}', "line 1: text must be a string"),
        ("a.jsonl", '{"text":"x","label":true}', "line 1: True is no label"),
        ("a.jsonl", '{"text":"x","label":-1}', "line 1: -1 is no label"),
        ("a.jsonl", '{"text":"x","label":[0,1]}', "line 1: 2 labels; this model gives"),
        ("a.jsonl", '{"text":"\\ud83d","label":0}', "line 1: the text has half a character"),
        ("a.parquet", "x", "ends in '.parquet'; give a .csv"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(ExamplesError, match=message) as caught:
        load(tmp_path, content, name)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_columns_may_have_any_name(tmp_path: Path) -> None:
    columns = Columns("review", "stars")
    for name, content in {
        "a.csv": "review,stars,text,label\nfine,1,x,0\n",
        "a.jsonl": '{"review":"fine","stars":"positive","text":7}',
    }.items():
        (tmp_path / name).write_text(content)
        assert found(load_examples(tmp_path / name, LABELS, SINGLE, columns)) == [("fine", [1])]


def test_a_file_without_labels_gives_texts_and_the_names_of_its_columns(tmp_path: Path) -> None:
    for name, content in {"a.csv": "id,text\n7,fine\n8,bad\n", "a.jsonl": '{"id":7,"text":"fine"}'}.items():
        examples = load(tmp_path, content, name)
        assert examples.targets is None
        assert examples.texts[0] == "fine"
        assert examples.columns == "'id', 'text'"


def test_a_label_column_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nfine,1\n")
    with pytest.raises(ExamplesError, match=r"no column 'mood' among those found \('text', 'label'\)"):
        load_examples(tmp_path / "a.csv", LABELS, SINGLE, Columns(label="mood"))
    with pytest.raises(ExamplesError, match="must differ"):
        load_examples(tmp_path / "a.csv", LABELS, SINGLE, Columns(text="label"))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=r"nowhere\.csv cannot be read: No such file"):
        load_examples(tmp_path / "nowhere.csv", LABELS, SINGLE)


def test_a_line_separator_inside_a_json_string_ends_no_line(tmp_path: Path) -> None:
    content = json.dumps({"text": "a\u2028b\x85c", "label": 1}, ensure_ascii=False)
    assert found(load(tmp_path, content, "a.jsonl")) == [("a\u2028b\x85c", [1])]


def test_the_bundled_held_out_file_is_used_whole() -> None:
    examples = default_examples(CHECKPOINT, LABELS, SINGLE)
    assert len(examples.texts) == 1842
    assert examples.targets is not None
    assert (examples.targets.sum(axis=1) == 1).all()


def test_a_checkpoint_without_a_file_is_asked_about_our_own_texts_of_all_lengths(tmp_path: Path) -> None:
    examples = default_examples(tmp_path, LABELS, SINGLE)
    assert examples.targets is None
    words = [len(text.split()) for text in examples.texts]
    assert min(words) == 1
    assert max(words) > 512
    # Enough for 98.5 % to allow one tie to fall the other way.
    assert len(set(examples.texts)) == len(own_texts()) > 200
    (tmp_path / HELDOUT).write_text("text\tlabel\nfine\tPOSITIVE\n")
    assert found(default_examples(tmp_path, LABELS, SINGLE)) == [("fine", [1])]
