"""A comparison on a terminal, with ``rich``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bulk.compare.report import Section, clean

_PIPE_WIDTH = 160
_LONGEST_TEXT = 200


def print_sections(found: Sequence[Section]) -> None:
    """Print sections to standard output; a pipe has lines of 160 characters."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    for section in found:
        console.print(Text(f"\n{section.title}", style="bold"))
        for sentence in section.sentences:
            console.print(Text(clean(sentence)))
        if not section.rows:
            continue
        table = Table(box=None, pad_edge=False, show_header=any(section.columns))
        for title in section.columns:
            is_text = title in section.texts
            table.add_column(title, overflow="fold", ratio=1 if is_text else None)
        for row in section.rows:
            table.add_row(
                *(
                    Text(_shown(cell, title in section.texts))
                    for title, cell in zip(section.columns, row, strict=True)
                )
            )
        console.print(table)


def _shown(cell: str, is_text: bool) -> str:
    cell = clean(cell)
    return f"{cell[: _LONGEST_TEXT - 1]}…" if is_text and len(cell) > _LONGEST_TEXT else cell
