"""Tables in Markdown whose cells may hold anything."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

SHOWN_CHARACTERS = 500
# Not an underscore inside a word: it emphasises nothing there, and labels are called LABEL_0.
_MARKS = re.compile(r"[\\`*\[\]~|]|(?<!\w)_|_(?!\w)")


class Markup(str):
    """Markdown of our own, which a cell shows as it is."""

    __slots__ = ()


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table of other people's texts and our own numbers."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(value: Any) -> str:
    """A value in one line; it ends no cell, and no mark in it has a meaning."""
    if isinstance(value, Markup):
        return value
    line = html.escape(" ".join(str(value).split()), quote=False)
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", line)


def shortened(text: str) -> str:
    """A text as a report shows it; ``report.json`` has all of it."""
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
