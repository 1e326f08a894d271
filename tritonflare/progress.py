"""Progress of long work, as bars or lines."""

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
    """Receives the steps of the work, and the progress inside a step; calling it begins a step."""

    def __call__(self, name: str) -> None:
        """Do the same as ``step``."""
        self.step(name)

    def step(self, name: str) -> None:
        """Begin a step: one plain line on stderr."""
        click.echo(name, err=True)

    def advance(self, done: int, total: int) -> None:
        """Report the progress of the step; not shown without a terminal."""


class _Bar(Steps):
    """A bar for the present step; finished steps stay above it with their time."""

    def __init__(self, bars: Progress, title: str) -> None:
        self._bars = bars
        self._task = bars.add_task(title, total=None)

    def step(self, name: str) -> None:
        self.finish()
        self._task = self._bars.add_task(name, total=None)

    def advance(self, done: int, total: int) -> None:
        self._bars.update(self._task, completed=done, total=total)

    def finish(self) -> None:
        """End the present step; its bar is shown as complete."""
        task = self._bars.tasks[-1]
        total = task.total or 1
        self._bars.update(self._task, completed=total, total=total)
        self._bars.stop_task(self._task)


@contextmanager
def progress(title: str, console: Console | None = None) -> Iterator[Steps]:
    """Show bars with counts on a terminal, one plain line for each step elsewhere; both on stderr."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Steps()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        bar = _Bar(bars, title)
        yield bar
        bar.finish()
