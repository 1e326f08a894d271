"""``tritonflare classify``: the same command, or nearly the same, after one that did not end well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.fake_api import ACCOUNT, TOKEN, FakeApi, scores_of, serving
from tests.support.files_of_texts import read_csv
from tritonflare.main import cli

FAILURE = (500, 8007, {"x-should-retry": "false"})


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serving(FakeApi()) as api:
        yield api


def classify(api: FakeApi, *arguments: str | Path, token: str = TOKEN) -> Result:
    words = ["classify", *map(str, arguments), "--url", api.url, "--account", ACCOUNT]
    return CliRunner().invoke(cli, words, env={"TOKEN": token})


def texts_in(path: Path, count: int = 40) -> Path:
    rows = [f"{path.stem} {number}" for number in range(count)]
    path.write_text("\n".join(["text", *rows, ""]))
    return path


def output_of(path: Path) -> Path:
    return path.with_suffix(".classified.csv")


def journal_of(path: Path) -> Path:
    return path.with_suffix(".classified.csv.journal")


def interrupt(api: FakeApi, path: Path) -> None:
    """Let a request be refused, and those beside it be answered."""
    api.refused = f"{path.stem} 3"
    assert classify(api, path).exit_code == 2
    api.refused = None
    assert journal_of(path).exists()
    assert api.asked.total()


def test_an_old_output_is_no_finished_one_because_a_later_input_was_interrupted(
    api: FakeApi, tmp_path: Path
) -> None:
    a, b = texts_in(tmp_path / "a.csv"), texts_in(tmp_path / "b.csv")
    interrupt(api, b)
    output_of(a).write_text("of yesterday")
    refused = classify(api, a, b)
    assert (refused.exit_code, output_of(a).read_text()) == (2, "of yesterday")
    assert "a.classified.csv exists" in refused.stderr
    done = classify(api, a, b, "--overwrite")
    assert done.exit_code == 0, done.stderr
    assert len(read_csv(output_of(a), "utf-8")) == 41
    assert set(api.asked.values()) == {1}


def test_what_ends_between_two_inputs_goes_on_with_the_second(api: FakeApi, tmp_path: Path) -> None:
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    a.write_text('id,text\n1,fine\n2,""\n')
    b.write_bytes("text\ncafé\n".encode())
    command = (a, b, "--encoding", "ascii")
    assert classify(api, *command).exit_code == 2  # b cannot be read: it has no journal
    before = output_of(a).stat()
    b.write_text("text\ncoffee\n")
    done = classify(api, *command)
    assert done.exit_code == 1, done.stderr  # a row of the first has no text
    assert f"{a}: finished before, {output_of(a)} is kept" in done.stderr
    assert output_of(a).stat() == before
    assert api.asked == {"fine": 1, "coffee": 1}
    assert not list(tmp_path.glob("*.journal"))


def test_a_finished_input_that_has_changed_is_done_anew_with_overwrite_alone(
    api: FakeApi, tmp_path: Path
) -> None:
    a, b = texts_in(tmp_path / "a.csv"), tmp_path / "b.csv"
    b.write_bytes("text\ncafé\n".encode())
    command = (a, b, "--encoding", "ascii")
    assert classify(api, *command).exit_code == 2
    a.write_text("text\nother\n")
    b.write_text("text\ncoffee\n")
    refused = classify(api, *command)
    assert "the input has changed" in refused.stderr
    assert len(read_csv(output_of(a), "utf-8")) == 41
    assert classify(api, *command, "--overwrite").exit_code == 0
    assert [row[0] for row in read_csv(output_of(a), "utf-8")] == ["text", "other"]


@pytest.mark.parametrize("is_listed", [True, False], ids=["listed", "told by answers"])
def test_another_version_of_the_model_does_not_continue(
    api: FakeApi, tmp_path: Path, is_listed: bool
) -> None:
    path, api.is_listed = texts_in(tmp_path / "a.csv"), is_listed
    api.refused = "a 3"
    assert classify(api, path).exit_code == 2
    api.refused, api.version = None, "2-other"
    refused = classify(api, path)
    assert refused.exit_code == 2
    assert "(model version differ)" in refused.stderr
    assert not output_of(path).exists()


def test_another_server_does_not_continue_and_another_form_of_the_address_does(
    api: FakeApi, tmp_path: Path
) -> None:
    path = texts_in(tmp_path / "a.csv")
    interrupt(api, path)
    with serving(FakeApi()) as other:
        refused = classify(other, path)
        assert refused.exit_code == 2
        assert "(server differ)" in refused.stderr
        assert other.asked.total() == 0
    api.url += "/client/v4/"
    assert classify(api, path).exit_code == 0
    assert set(api.asked.values()) == {1}


def test_rows_that_failed_at_the_server_are_asked_again_and_no_others(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\none\ntwo\nthree\n")
    api.faults.extend([FAILURE, FAILURE])  # of the request, and of its first text alone
    failed = classify(api, path)
    assert failed.exit_code == 1
    assert "asks about these alone again" in failed.stderr
    assert read_csv(output_of(path), "utf-8")[1] == ["one", "", "", "", "a fault"]
    assert api.asked == {"two": 1, "three": 1}
    done = classify(api, path)
    assert done.exit_code == 0, done.stderr
    assert api.asked == {"one": 1, "two": 1, "three": 1}
    rows = read_csv(output_of(path), "utf-8")[1:]
    assert [(row[0], float(row[2])) for row in rows] == [
        (text, max(scores_of(text))) for text in ("one", "two", "three")
    ]
    assert not journal_of(path).exists()


def test_an_encoding_that_cannot_hold_the_output_costs_no_answers(api: FakeApi, tmp_path: Path) -> None:
    path = texts_in(tmp_path / "a.csv")
    path.write_text(path.read_text() + "café\n")
    refused = classify(api, path, "--output-encoding", "ascii")
    assert refused.exit_code == 2
    assert "--output-encoding" in refused.stderr
    done = classify(api, path, "--output-encoding", "utf-16")
    assert done.exit_code == 0, done.stderr
    assert read_csv(output_of(path), "utf-16")[-1][0] == "café"
    assert set(api.asked.values()) == {1}


def test_a_token_comes_from_a_file_or_the_environment_and_from_no_option(
    api: FakeApi, tmp_path: Path
) -> None:
    path, file = texts_in(tmp_path / "a.csv"), tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    none = classify(api, path, token="")
    assert (none.exit_code, api.requests) == (2, 0)
    assert "set TOKEN, or name a file with --token-file" in none.stderr
    assert "No such option" in classify(api, path, "--token", TOKEN).stderr
    assert classify(api, path, "--token-file", file, token="wrong").exit_code == 0


def test_long_texts_are_cut_whatever_the_server_does_with_them(api: FakeApi, tmp_path: Path) -> None:
    assert classify(api, texts_in(tmp_path / "a.csv")).exit_code == 0
    assert api.queries == {"result_shape=array&long=cut"}
