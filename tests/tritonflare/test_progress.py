from __future__ import annotations

import io

import pytest
from rich.console import Console

from tritonflare.progress import progress


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
