"""``tritonflare classify`` as people call it."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.bulk.file_check import journal_numbers
from tests.support.bundled import bundled_repository
from tests.support.fake_api import ACCOUNT, MODEL, TOKEN, FakeApi, scores_of, serving
from tests.support.files_of_texts import read_csv, write_awkward_csv
from tests.support.gateway_process import gateway_before_fake
from tests.support.harness import ANY_TOKEN
from tritonflare.main import cli


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serving(FakeApi()) as api:
        yield api


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real gateway before a fake Triton."""
    with gateway_before_fake(tmp_path_factory.mktemp("gateway") / "log") as port:
        yield f"http://127.0.0.1:{port}"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tritonflare", "classify", *map(str, arguments)]


def environment(token: str = TOKEN) -> dict[str, str]:
    return os.environ | {"TOKEN": token, "ACCOUNT": ACCOUNT}


def classify(api: FakeApi, *arguments: str | Path) -> Result:
    return call(api.url, TOKEN, *arguments)


def call(url: str, token: str, *arguments: str | Path) -> Result:
    """Run the command in this process, which saves seconds of imports."""
    words = ["classify", *map(str, arguments), "--url", url, "--account", ACCOUNT]
    return CliRunner().invoke(cli, words, env={"TOKEN": token})


def test_an_awkward_file_in_cp1252_keeps_every_row_and_cell(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    empty = write_awkward_csv(path, 2000, "cp1252")
    done = classify(api, path)
    assert done.exit_code == 1, done.stderr
    assert f"{path}: CSV, comma, cp1252; column review; {MODEL}\n" in done.stderr
    assert f"{empty} failed; {tmp_path}/reviews.classified.csv\n  {empty} × no text\n" in done.stderr
    before, after = read_csv(path, "cp1252"), read_csv(tmp_path / "reviews.classified.csv", "cp1252")
    assert [row[:3] for row in after] == before
    assert after[0][3:] == ["label", "score", "truncated", "error"]
    for row in after[1:]:
        negative, positive = scores_of(row[1])
        best = ("POSITIVE", positive) if positive > negative else ("NEGATIVE", negative)
        assert row[3:] == (["", "", "", "no text"] if not row[1] else [best[0], str(best[1]), "false", ""])
    assert {path.name for path in tmp_path.iterdir()} == {"reviews.csv", "reviews.classified.csv"}


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_awkward_csv(path, 3000, "utf-8")
    output, journal = tmp_path / "a.classified.csv", tmp_path / "a.classified.csv.journal"
    assert classify(api, path).exit_code == 1
    expected = output.read_bytes()
    output.unlink()
    api.asked.clear()
    api.delay_s = 0.05
    noted: Counter[int] = Counter()
    for kill in range(3):
        process = subprocess.Popen(
            [*command(path), "--url", api.url], env=environment(), stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 30
        while len(journal_numbers(journal)) < 700 * (kill + 1) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not output.exists()
        noted = Counter(journal_numbers(journal))
        assert sum(noted.values()) >= 700 * (kill + 1)
    assert classify(api, path).exit_code == 1
    assert max(noted.values()) == 1  # what was noted was not asked again
    assert output.read_bytes() == expected
    assert not journal.exists()


def test_an_interruption_keeps_what_was_answered_and_another_command_is_refused(
    api: FakeApi, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    write_awkward_csv(path, 3000, "utf-8")
    api.delay_s = 0.1
    process = subprocess.Popen(
        [*command(path), "--url", api.url], env=environment(), stderr=subprocess.PIPE, text=True
    )
    journal = tmp_path / "a.classified.csv.journal"
    while len(journal_numbers(journal)) < 100:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "run the same command again to continue" in said
    assert "Traceback" not in said
    api.delay_s = 0
    refused = classify(api, path, "--column", "note")
    assert refused.exit_code == 2
    assert "is the journal of another run (columns differ)" in refused.stderr
    noted = set(journal_numbers(journal))
    end = time.monotonic() + 10
    while api.under_way and time.monotonic() < end:  # what was interrupted
        time.sleep(0.01)
    api.asked.clear()
    done = classify(api, path)
    assert "continuing with" in done.stderr
    rest = [row[1] for number, row in enumerate(read_csv(path, "utf-8")[1:]) if number not in noted]
    assert api.asked == Counter(text for text in rest if text)  # what was noted is not asked again
    rows = len(read_csv(tmp_path / "a.classified.csv", "utf-8"))
    assert rows == 3001


def test_standard_input_goes_to_standard_output(api: FakeApi) -> None:
    done = subprocess.run(
        [*command("-"), "--url", api.url],
        input="so good\nso bad\n",
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert [row[0] for row in rows] == ["text", "so good", "so bad"]
    assert float(rows[1][2]) == max(scores_of("so good"))


def test_columns_that_exist_are_not_doubled_and_scores_can_be_all(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nfine,1\n")
    assert classify(api, path, "--all-scores").exit_code == 0
    header, row = read_csv(tmp_path / "a.classified.csv", "utf-8")
    names = ["label", "score", "score_NEGATIVE", "score_POSITIVE", "truncated", "error"]
    assert header == ["text", "label", *(f"predicted_{name}" for name in names)]
    assert [float(cell) for cell in row[4:6]] == list(scores_of("fine"))


def test_an_output_that_exists_is_not_replaced(api: FakeApi, tmp_path: Path) -> None:
    path, output = tmp_path / "a.txt", tmp_path / "a.classified.csv"
    path.write_text("fine\n")
    output.write_text("mine")
    done = classify(api, path)
    assert (done.exit_code, output.read_text()) == (2, "mine")
    assert "exists; replace it with --overwrite" in done.stderr
    assert classify(api, path, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--column", "x"), "a.csv has no column x; it has: id, review, note"),
        (("--encoding", "ascii"), "is not ascii; name the encoding with --encoding"),
        (("--model", "@cf/no/such"), "refuses: No such model"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    gateway: str, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    write_awkward_csv(tmp_path / "a.csv", 50, "utf-8")
    done = call(gateway, ANY_TOKEN, tmp_path / "a.csv", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.needs_triton
def test_without_a_server_it_starts_one_and_gives_its_scores(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("This pizza is great!\n" + "word " * 600 + "\n")
    done = subprocess.run(
        command(path, "--repository", bundled_repository()),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "a.classified.csv", "utf-8")
    assert rows[1] == ["This pizza is great!", "POSITIVE", "0.9904888793756232", "false", ""]
    assert rows[2][3] == "true"
    assert "1 cut at the model's limit, 0 failed" in done.stderr
    assert "INFO" not in done.stderr


def test_waiting_for_a_pipe_can_be_interrupted(api: FakeApi) -> None:
    process = subprocess.Popen(
        [*command("-"), "--url", api.url], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"a text\n")
    process.stdin.flush()
    assert b"standard input: plain lines" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.communicate()


def test_waiting_for_a_server_that_is_away_can_be_interrupted(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("fine\n")
    api.is_away = True
    process = subprocess.Popen(
        [*command(path), "--url", api.url], stderr=subprocess.PIPE, text=True, env=environment()
    )
    end = time.monotonic() + 30
    while api.turned_away < 2 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=20)[1]
    assert (process.returncode, said) == (130, "interrupted before anything was asked.\n")


def test_several_files_continue_where_they_were_interrupted(api: FakeApi, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.csv" for name in "abc"]
    for place, path in enumerate(paths):
        write_awkward_csv(path, 1500, "utf-8", seed=place)
        path.with_suffix(".classified.csv").write_text("old")
    assert classify(api, *paths).exit_code == 2
    api.delay_s = 0.1
    process = subprocess.Popen([*command(*paths, "--overwrite"), "--url", api.url], env=environment())
    while not journal_numbers(tmp_path / "b.classified.csv.journal") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    api.delay_s = 0
    asked = api.asked.total()
    done = classify(api, *paths, "--overwrite")
    assert f"{paths[0]}: finished before" in done.stderr
    assert asked < api.asked.total()
    for path in paths:
        assert len(read_csv(path.with_suffix(".classified.csv"), "utf-8")) == 1501


def test_a_stray_quote_stops_the_command_before_anything_is_asked(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tn\n"Great start\t1\nb\t2\nc "quoted\t3\nd" end\t4\n')
    refused = classify(api, path)
    assert refused.exit_code == 2
    assert f"{path}: in line 4, text stands behind a closing quote" in refused.stderr
    assert "--quoting none" in refused.stderr
    assert not api.asked
    done = classify(api, path, "--quoting", "none")
    assert done.exit_code == 0, done.stderr
    lines = (tmp_path / "a.classified.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines[1:]] == ['"Great start', "b", 'c "quoted', 'd" end']
    assert [float(line.split("\t")[3]) for line in lines[1:]] == [
        max(scores_of(text)) for text in ('"Great start', "b", 'c "quoted', 'd" end')
    ]


def test_rows_of_several_lines_are_counted_on_the_terminal(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\n"two\nlines"\n')
    assert "1 row has several lines within quotes (first: lines 2 to 3)" in classify(api, path).stderr


def test_an_output_that_says_another_format_is_refused(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\nfine\n")
    done = classify(api, path, "-o", tmp_path / "out.parquet")
    assert done.exit_code == 2
    assert "the output will not be of this format; end its name with .csv" in done.stderr
    assert not api.asked
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_an_output_never_replaces_an_input(api: FakeApi, tmp_path: Path) -> None:
    path, link, part = tmp_path / "a.csv", tmp_path / "link.csv", tmp_path / "b.csv.part"
    for each in (path, part, tmp_path / "a.classified.csv"):
        each.write_text("text\nfine\n")
    link.symlink_to(path)
    for arguments in (
        (path, "-o", path),
        (path, "-o", tmp_path / ".." / tmp_path.name / "a.csv"),
        (link, "-o", path),
        (part, "--format", "csv", "-o", tmp_path / "b.csv"),
        (path, tmp_path / "a.classified.csv"),
    ):
        done = classify(api, *arguments, "--overwrite")
        assert (done.exit_code, "would replace an input" in done.stderr) == (2, True), done.stderr
    assert path.read_text() == part.read_text() == "text\nfine\n"
    assert not api.asked


def test_an_output_with_prefixed_columns_can_be_classified_again(api: FakeApi, tmp_path: Path) -> None:
    path, output = tmp_path / "a.csv", tmp_path / "a.classified.classified.csv"
    path.write_text("text,label\nfine,1\n")
    assert classify(api, path).exit_code == 0
    assert classify(api, tmp_path / "a.classified.csv").exit_code == 0
    header = read_csv(output, "utf-8")[0]
    assert len(set(header)) == len(header) == 10
    assert header[-1] == "predicted_2_error"
