"""Two reports side by side: ``python -m loadtest.compare FOLDER FOLDER [--output FOLDER]``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from loadtest.plots import write_side_by_side
from loadtest.summary import facts, read_summary
from loadtest.tables import markdown_table


def as_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a fact, one column a report; in the last, the second as a multiple of the first."""
    columns = [dict(facts(summary)) for summary in summaries.values()]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    return markdown_table(("", *summaries, "second / first"), [[*row, _ratio(*row[1:])] for row in rows])


def _ratio(first: str, second: str) -> str:
    try:
        return f"{float(second) / float(first):.2f}"
    except (ValueError, ZeroDivisionError):
        return ""


@click.command()
@click.argument("first", type=click.Path(exists=True, path_type=Path))
@click.argument("second", type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder for compare.md and compare.png.")
def main(first: Path, second: Path, output: Path | None) -> None:
    """Put two reports of `make loadtest` beside each other."""
    names = [str(path) for path in (first, second)]
    if first == second:
        names = [f"{names[0]} (1)", f"{names[1]} (2)"]
    try:
        summaries = {name: read_summary(path) for name, path in zip(names, (first, second), strict=True)}
    except (OSError, ValueError) as exc:
        raise click.ClickException(str(exc)) from exc
    table = as_table(summaries)
    click.echo(table, nl=False)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_side_by_side(summaries, output / "compare.png")
        text = f"# Two load tests\n\n{table}\n![](compare.png)\n"
        (output / "compare.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
