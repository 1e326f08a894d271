from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from tritonflare.progress import progress
from tritonflare.progress_rows import progress_of_rows


def test_a_terminal_shows_each_step_with_its_count() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress("exporting", console) as steps:
        steps.step("scoring")
        steps.advance(3, 12)
        steps.advance(12, 12)
        steps("publishing")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "scoring" in shown
    assert "12/12" in shown
    assert "publishing" in shown


def test_elsewhere_a_step_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("exporting", Console(file=io.StringIO())) as steps:
        steps.step("scoring")
        steps.advance(3, 12)
        steps("publishing")
    captured = capsys.readouterr()
    assert captured.err == "scoring\npublishing\n"
    assert captured.out == ""


def test_rows_are_shown_with_rate_and_share_on_a_terminal_and_not_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tritonflare.progress_rows._EVERY_S", 0.0)
    shown: dict[bool, str] = {}
    for is_terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, force_terminal=is_terminal, width=120)
        with progress_of_rows("reviews.csv", lambda: (50, 200), console) as on_rows:
            time.sleep(0.01)
            on_rows(1234, 1000)
        shown[is_terminal] = out.getvalue()
    assert "1,234 rows" in shown[True]
    assert "25%" in shown[True]
    assert re.search(r"[\d,]+/s", shown[True])
    assert shown[False] == ""
