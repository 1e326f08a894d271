"""What the bench commands share: an option, the machine's description, and output."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    from loadtest.bench.report import Table

_PACKAGES = (
    "tritonflare",
    "nvidia-pytriton",
    "onnxruntime",
    "onnxruntime-gpu",
    "nvidia-cuda-runtime-cu12",
    "nvidia-cudnn-cu12",
    "tokenizers",
    "grpcio",
    "uvloop",
)


class Numbers(click.ParamType[tuple[int, ...]]):
    """Comma-separated whole numbers above 0."""

    name = "N,N,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers, or fail with a usage error."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isdecimal() and int(part) for part in parts):
            self.fail(f"{value!r} is no list of whole numbers such as 1,8,32", param, ctx)
        return tuple(map(int, parts))


class Names(click.ParamType[tuple[str, ...]]):
    """Comma-separated names of those that are known, in the order in which they are known."""

    name = "NAME,NAME,…"

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names, or fail with a usage error."""
        if isinstance(value, tuple):
            return value
        chosen = [part.strip() for part in value.split(",")]
        if unknown := [name for name in chosen if name not in self._known]:
            self.fail(f"{', '.join(unknown)}: known are {', '.join(self._known)}", param, ctx)
        return tuple(name for name in self._known if name in chosen)


def end_in_order() -> None:
    """On these signals, Python's default would end the process on the spot and leave servers behind."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) != signal.SIG_IGN:  # nohup
            signal.signal(ending, lambda number, _frame: sys.exit(128 + number))


def environment() -> dict[str, Any]:
    """The machine and the versions; neither names nor paths."""
    import os
    import platform

    from export.evaluation.host import describe_host

    return vars(describe_host()) | {
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "packages": installed(_PACKAGES),
    }


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed; a GPU's environment has another onnxruntime than a CPU's."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def write_json(file: Path, document: Mapping[str, Any]) -> None:
    """Write a document that people read as well."""
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def print_tables(shown: Sequence[Table]) -> None:
    """Print tables to the terminal or the file that standard output is."""
    from rich import box
    from rich.table import Table as RichTable

    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has no edge to wrap at
    for one in shown:
        table = RichTable(*one.heads, title=one.title, title_justify="left", box=box.SIMPLE_HEAD)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in one.rows:
            table.add_row(*row)
        console.print(table)
