"""What long work is doing just now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


class Steps:
    """Told of each step, and inside a step of how much is done; calling it begins a step."""

    def __call__(self, name: str) -> None:
        """Same as ``step``."""
        self.step(name)

    def step(self, name: str) -> None:
        """A new piece of work begins: one plain line on stderr."""
        click.echo(name, err=True)

    def advance(self, done: int, total: int) -> None:
        """So much of it is done; nothing to see where lines cannot be rewritten."""


class _Bar(Steps):
    """One bar that belongs to the present step; finished steps stay above it with their time."""

    def __init__(self, bars: Progress, title: str) -> None:
        self._bars = bars
        self._task = bars.add_task(title, total=None)

    def step(self, name: str) -> None:
        self.finish()
        self._task = self._bars.add_task(name, total=None)

    def advance(self, done: int, total: int) -> None:
        self._bars.update(self._task, completed=done, total=total)

    def finish(self) -> None:
        """The present step is over, however much of it was counted."""
        task = self._bars.tasks[-1]
        total = task.total or 1
        self._bars.update(self._task, completed=total, total=total)
        self._bars.stop_task(self._task)


@contextmanager
def progress(title: str, console: Console | None = None) -> Iterator[Steps]:
    """Bars with counts on a terminal, one plain line a step elsewhere; both on stderr."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Steps()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        bar = _Bar(bars, title)
        yield bar
        bar.finish()
