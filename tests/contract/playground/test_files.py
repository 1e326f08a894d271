"""Texts of several lines, more texts than one request may have, and tables: in the browser."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.support.playground import DESKTOP, Visit

# What depends on the size of the window is tested elsewhere.
pytestmark = pytest.mark.parametrize("visit", [DESKTOP], ids=["desktop"], indirect=True)

TABLE = [
    ["id", "review", "stars"],
    ["1", 'He said "no",\nand left; 🍕', "1"],
    ["2", "", "3"],
    ["3", "=HYPERLINK(1)", "-5"],
    ["4", "naïve", "4"],
    ["5", "last", ""],
]


def _open(visit: Visit, content: bytes, name: str = "reviews.csv") -> None:
    visit.page.get_by_label("Or a file").set_input_files(
        {"name": name, "mimeType": "text/csv", "buffer": content}
    )


def _as_csv(rows: list[list[str]], delimiter: str = ",") -> str:
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter).writerows(rows)
    return written.getvalue()


def _download(visit: Visit) -> tuple[str, bytes]:
    with visit.page.expect_download() as started:
        visit.page.get_by_role("button", name="Download CSV").click()
    return started.value.suggested_filename, Path(started.value.path()).read_bytes()


def _sent(visit: Visit) -> list[list[str]]:
    """Texts of each request to a model from now on."""
    requests: list[list[str]] = []

    def note(route: Route) -> None:
        body = json.loads(route.request.post_data or "")
        requests.append([request["text"] for request in body.get("requests", [body])])
        route.continue_()

    visit.page.route("**/ai/run/**", note)
    return requests


def test_a_blank_line_stands_between_two_texts_which_may_have_several_lines(visit: Visit) -> None:
    sent = _sent(visit)
    visit.enter_token()
    visit.page.locator("#texts").fill("\n\none\n  two  \n \n\nthree\n")
    expect(visit.page.locator("#count")).to_have_text("2 texts.")
    visit.classify()
    expect(visit.page.locator("#answers > li")).to_have_count(2)
    visit.page.get_by_label("Each line is a text of its own").check()
    expect(visit.page.get_by_label("Texts, one on each line")).to_be_visible()
    visit.classify()
    expect(visit.page.locator("#answers > li")).to_have_count(3)
    assert sent == [["one\n  two", "three"], ["one", "  two", "three"]]


def test_more_texts_than_one_request_may_have_are_sent_one_request_after_the_other(visit: Visit) -> None:
    sent = _sent(visit)
    visit.enter_token()
    visit.write(*(f"text {place}" for place in range(8)))
    visit.classify()
    expect(visit.page.get_by_role("status")).to_have_text(
        re.compile(r"^8 texts in [\d.]+ m?s · 0\.\d\d neurons$")
    )
    answers = visit.page.locator("#answers .text")
    assert answers.all_inner_texts() == [f"text {place}" for place in range(8)]
    assert [len(texts) for texts in sent] == [3, 3, 2]
    expect(visit.page.locator("#progress")).to_be_hidden()


def test_a_long_job_can_be_stopped_and_gone_on_with(visit: Visit) -> None:
    requests: list[list[str]] = []

    def slow(route: Route) -> None:
        texts = [request["text"] for request in json.loads(route.request.post_data or "")["requests"]]
        requests.append(texts)
        if len(requests) == 2:
            return  # no answer comes
        route.continue_()

    visit.page.route("**/ai/run/**", slow)
    visit.enter_token()
    visit.write(*"abcdefgh")
    visit.classify()
    # The first scores are there, and the focus is with them, while the others are waited for.
    expect(visit.page.locator("#answers > li")).to_have_count(3)
    expect(visit.page.get_by_role("heading", name="Scores")).to_be_focused()
    expect(visit.page.locator("#progress-text")).to_have_text("3 of 8 texts")
    expect(visit.page.get_by_role("progressbar")).to_have_js_property("value", 3)
    visit.page.get_by_role("button", name="Stop").click()
    expect(visit.page.get_by_role("status")).to_have_text("Stopped: 3 of 8 texts classified.")
    expect(visit.page.get_by_role("alert")).to_be_hidden()
    _, content = _download(visit)
    errors = [row["error"] for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig")))]
    assert errors == ["", "", "", *["not sent"] * 5]
    visit.page.get_by_role("button", name="Go on with the other 5").click()
    expect(visit.page.get_by_role("status")).to_have_text(re.compile("^8 texts in "))
    assert requests == [["a", "b", "c"], ["d", "e", "f"], ["d", "e", "f"], ["g", "h"]]


def test_a_busy_gateway_is_asked_again_when_it_says_and_a_failure_keeps_what_there_is(visit: Visit) -> None:
    answers = iter([200, 429, 200, 500])

    def busy(route: Route) -> None:
        kind = next(answers)
        if kind == 200:
            route.continue_()
            return
        errors = [{"code": 3040 if kind == 429 else 8007, "message": "words of the API"}]
        headers = {"retry-after": "1"} if kind == 429 else {}
        route.fulfill(status=kind, json={"success": False, "errors": errors}, headers=headers)

    visit.page.route("**/ai/run/**", busy)
    visit.enter_token()
    visit.write(*"abcdefgh")
    visit.classify()
    expect(visit.page.get_by_role("status")).to_have_text("The gateway is busy. Going on in 1 s.")
    expect(visit.page.get_by_role("alert")).to_have_text("The model could not score these texts.")
    expect(visit.page.get_by_role("status")).to_have_text("Not finished: 6 of 8 texts classified.")
    expect(visit.page.locator("#answers > li")).to_have_count(6)
    visit.complaints = [text for text in visit.complaints if "status of 500" not in text]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (_as_csv(TABLE).encode(), "separated by comma, UTF-8"),
        (_as_csv(TABLE, ";").encode("utf-16"), "separated by semicolon, UTF-16"),
    ],
    ids=["comma", "semicolon in UTF-16"],
)
def test_a_table_comes_back_with_scores_and_all_of_its_rows(visit: Visit, content: bytes, note: str) -> None:
    sent = _sent(visit)
    visit.enter_token()
    _open(visit, content)
    expect(visit.page.get_by_label("Column with the texts")).to_be_focused()
    expect(visit.page.locator("#opened-name")).to_have_text(f"reviews.csv: {note}")
    expect(visit.page.get_by_label("Column with the texts").locator("option:checked")).to_have_text("review")
    expect(visit.page.locator("#count")).to_have_text("5 texts.")
    visit.classify()
    expect(visit.page.get_by_role("status")).to_have_text(re.compile("· 1 without a score$"))
    assert [text for texts in sent for text in texts] == [row[1] for row in TABLE[1:] if row[1]]
    name, written = _download(visit)
    assert name == "reviews-scores.csv"
    assert written.startswith(b"\xef\xbb\xbf")  # spreadsheets take it for Latin 1 otherwise
    header, *rows = csv.reader(io.StringIO(written.decode("utf-8-sig"), newline=""))
    scores = ["label", "score", "score NEGATIVE", "score POSITIVE"]
    assert header == [*TABLE[0], *scores, "truncated", "error"]
    cells = [row[:3] for row in rows]
    assert cells[2][1] == "'=HYPERLINK(1)"
    cells[2][1] = cells[2][1][1:]
    assert cells == TABLE[1:]
    assert rows[1][3:] == ["", "", "", "", "", "There is no text here."]
    assert (rows[0][3], rows[0][7:]) == ("POSITIVE", ["false", ""])
    assert float(rows[0][4]) == float(rows[0][6]) == pytest.approx(0.9998, abs=1e-4)


def test_a_file_can_be_put_away_and_a_bad_one_is_explained(visit: Visit) -> None:
    alert = visit.page.get_by_role("alert")
    _open(visit, b'a,b\n"never closed')
    expect(alert).to_have_text("The quotation mark that opens a cell of row 2 has no end.")
    _open(visit, b"\n\n")
    expect(alert).to_have_text("The file has no text in it.")
    _open(visit, 'schön\nSchnee, "viel"\n'.encode("cp1252"), "lines.txt")
    expect(alert).to_be_hidden()
    expect(visit.page.locator("#opened-name")).to_have_text("lines.txt: a text on each line, Windows-1252")
    expect(visit.page.locator("#snippet")).to_contain_text('{"text":"Schnee, \\"viel\\""}')
    visit.page.get_by_role("button", name="Write texts instead").click()
    expect(visit.page.get_by_label("Texts, a blank line between two")).to_be_visible()
    expect(visit.page.get_by_label("Or a file")).to_be_focused()


def test_tables_are_read_and_written_as_python_does(visit: Visit) -> None:
    """Random tables full of what is special: through the page's parser and writer and Python's."""
    chance = random.Random(1)
    pieces = ['"', '""', ",", ";", "\t", "\n", "\r\n", " ", "a", "é", "🍕", "=", "-1", ""]
    tables = [
        [["".join(chance.choices(pieces, k=3)) for _ in range(width)] for _ in range(chance.randint(1, 4))]
        for width in [1, 2, 3, 4] * 50
    ]
    tables = [table for table in tables if table[-1] != [""]]
    read, written = visit.page.evaluate(
        """async ([tables, files]) => {
          const { parse, format } = await import("/assets/csv.js");
          return [files.map((file) => parse(file, ",")), tables.map((table) => [...format(table)].join(""))];
        }""",
        [tables, [_as_csv(table) for table in tables]],
    )
    assert read == tables

    def harmless(cell: str) -> str:
        is_number = re.fullmatch(r"-1(-1)*", cell) and cell.count("-") == 1
        return f"'{cell}" if cell[:1] in tuple("=-\t\r\n") and cell and not is_number else cell

    for table, file in zip(tables, written, strict=True):
        assert file.startswith("\ufeff")
        again = list(csv.reader(io.StringIO(file[1:], newline="")))
        assert again == [[harmless(cell) for cell in row] for row in table]


def test_a_large_table_is_written_in_parts_because_it_may_be_longer_than_a_string(visit: Visit) -> None:
    lengths, lines = visit.page.evaluate(
        """async () => {
          const { format } = await import("/assets/csv.js");
          const rows = Array.from({ length: 30_000 }, (_, row) => [row, "x".repeat(100)]);
          const parts = [...format(rows)];
          return [parts.map((part) => part.length), parts.join("").split("\\r\\n").length];
        }"""
    )
    assert len(lengths) == 4
    assert max(lengths) < 1_001_000
    assert lines == 30_001


def test_a_table_that_the_browser_has_no_room_for_is_an_error_that_can_be_seen(visit: Visit) -> None:
    visit.enter_token()
    visit.write("one")
    visit.classify()
    expect(visit.page.locator("#answers > li")).to_have_count(1)
    visit.page.evaluate("() => { window.Blob = class { constructor() { throw new RangeError(); } }; }")
    visit.page.get_by_role("button", name="Download CSV").click()
    alert = visit.page.get_by_role("alert")
    expect(alert).to_contain_text("The browser has no room for this file.")
    expect(visit.page.locator("#answers > li")).to_have_count(1)


def test_a_cell_that_a_spreadsheet_would_run_gets_an_apostrophe(visit: Visit) -> None:
    cells = {
        "=1+1": "'=1+1",
        "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
        "@SUM(A1)": "'@SUM(A1)",
        "\t=1": "'\t=1",
        "-good-": "'-good-",
        "-5": "-5",
        "+1,234.5": "+1,234.5",
        "-3 %": "-3 %",
        "a=1": "a=1",
    }
    found = visit.page.evaluate(
        'async (cells) => cells.map((await import("/assets/csv.js")).harmless)', list(cells)
    )
    assert found == list(cells.values())
