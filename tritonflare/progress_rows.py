"""Progress through the rows of a file: a bar with rate and time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_EVERY_S = 0.2

Position = Callable[[], tuple[int, int | None]]
OnRows = Callable[[int, int], None]
"""Takes the rows so far, and how many of them were asked in this run."""


@contextmanager
def progress_of_rows(title: str, position: Position, console: Console | None = None) -> Iterator[OnRows]:
    """Show how far a file is.

    Args:
        title: stands before the bar.
        position: returns how much of the input was read, and how much there is.
        console: where to show it; stderr by default.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda rows, asked: None
        return
    rate = TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]:,.0f}/s")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        rate,
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(title, total=None, rows=0, rate=0.0)
        begun = shown = time.monotonic()

        def on_rows(rows: int, asked: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < _EVERY_S:
                return
            shown = now
            done, total = position()
            bars.update(task, completed=done, total=total, rows=rows, rate=asked / (now - begun))

        yield on_rows
