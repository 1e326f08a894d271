"""Tables on standard output: lined up, never wrapped, the same on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence


def print_table(columns: Mapping[str, Sequence[str]], *, numbers: Container[str] = ()) -> None:
    """Print columns with their titles.

    A terminal that is too narrow gets fewer columns, the last left out first; a pipe gets all.

    Args:
        columns: title and cells of each column, the most important first; all of one length.
        numbers: titles of the columns whose cells end at the same place.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def table(titles: Sequence[str]) -> Table:
        lined_up = Table(box=None, pad_edge=False)
        for title in titles:
            lined_up.add_column(title, no_wrap=True, justify="right" if title in numbers else "left")
        for cells in zip(*(columns[title] for title in titles), strict=True):
            # Not markup: a cell may hold square brackets.
            lined_up.add_row(*map(Text, cells))
        return lined_up

    console, unbounded = Console(), Console(width=10_000)
    titles = list(columns)

    def width() -> int:
        return unbounded.measure(table(titles)).maximum

    while console.is_terminal and len(titles) > 1 and width() > console.width:
        titles.pop()
    Console(width=width()).print(table(titles))
