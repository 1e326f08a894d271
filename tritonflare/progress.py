"""What long work is doing just now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner on a terminal, one plain line a step elsewhere; both on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: click.echo(step, err=True)
        return
    with console.status(title) as status:
        yield status.update
