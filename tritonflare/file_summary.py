"""What the commands that work on files say when an input is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bulk.files import OutputFiles
    from bulk.run import Summary

_SHOWN_REASONS = 5


def summarise(name: str, output: OutputFiles | None, summary: Summary, seconds: float) -> None:
    """Say what became of an input's rows.

    Args:
        name: of the input.
        output: None for standard output.
        summary: of its run.
        seconds: that it took.
    """
    asked = summary.rows - summary.restored
    parts = [f"{summary.rows:,} rows in {seconds:,.1f} s ({asked / max(seconds, 1e-9):,.0f}/s)"]
    if summary.restored:
        parts.append(f"{summary.restored:,} from the journal")
    if summary.truncated:
        parts.append(f"{summary.truncated:,} cut at the model's limit")
    parts.append(f"{summary.failed:,} failed")
    place = "" if output is None else f"; {output.final}"
    say(f"{name}: {', '.join(parts)}{place}")
    shown = summary.reasons.most_common(_SHOWN_REASONS)
    for reason, count in shown:
        say(f"  {count:,} × {reason}")
    if (more := summary.failed - sum(count for _, count in shown)) > 0:
        say(f"  {more:,} for other reasons; see the column error")


def say(text: str) -> None:
    """Tell the person; standard output may be the result."""
    click.echo(text, err=True)
