"""``tritonflare export --list``, in a file and on narrow terminals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.repository.inventory import Published
from tests.export.test_run import ask
from tritonflare import export as cli

COLUMNS = [
    "name",
    "version",
    "precision",
    "target",
    "labels",
    "MB",
    "kept",
    "layout",
    "weights",
    "tokenizer",
    "created",
]


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Two published models whose names differ much in length; returns the options that name them."""
    names = ("@cf/a/b", "@cf/somebody/with-a-name-that-would-never-fit-into-a-narrow-table-beside-the-rest")
    models = [
        Published(name, "e", f"tokenizer_{'0' * 12}_512", "e", version, "int8", "cpu", ("a", "b"),
                  "2026-11-22 00:00:00.000", "f" * 64, "f" * 64, "f" * 64, 24_800_000)
        for name, version in zip(names, (1, 12), strict=True)
    ]  # fmt: skip
    monkeypatch.setattr("export.repository.inventory.read_inventory", lambda _repository: models)
    return names


def starts(line: str) -> list[int]:
    """Where the columns of a line begin: after two spaces and more."""
    return [0, *(found.end() for found in re.finditer(r" {2,}", line.rstrip()))]


def test_the_list_lines_up_and_is_whole_for_scripts(listed: tuple[str, ...]) -> None:
    head, *lines = ask("--list").output.splitlines()
    assert head.split() == COLUMNS
    assert [line.split()[0] for line in lines] == list(listed)
    for column in ("precision", "target", "layout", "weights", "tokenizer", "created"):
        place = head.index(column)
        assert all(line[place - 1] == " " != line[place] for line in lines)
    assert all(line.split()[-2:] == ["2026-11-22", "00:00:00.000"] for line in lines)


@pytest.mark.parametrize(("width", "columns"), [(300, 11), (130, 7), (40, 1)])
def test_a_narrow_terminal_gets_fewer_columns_and_no_broken_ones(
    listed: tuple[str, ...], width: int, columns: int
) -> None:
    found = CliRunner().invoke(cli.export, ["--list"], env={"FORCE_COLOR": "1", "COLUMNS": str(width)})
    head, *lines = re.sub(r"\x1b\[[0-9;]*m", "", found.output).splitlines()
    assert head.split() == COLUMNS[:columns]
    assert [line.split()[0] for line in lines] == list(listed)
