"""``tritonflare export --list``: the published models as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.repository.inventory import Published

# The most important first: a narrow terminal shows fewer columns.
_COLUMNS = (
    "name", "version", "precision", "target", "labels", "MB", "kept", "layout", "weights", "tokenizer",
    "created",
)  # fmt: skip
_NUMBERS = {"version", "labels", "MB"}


def list_models(repository: Path) -> None:
    """Print the models.

    Raises:
        ExportError: there is no such repository.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from export.repository.inventory import read_inventory
    from export.repository.kept import other_versions

    rows = [_row(model, other_versions(repository, model)) for model in read_inventory(repository)]

    def table(columns: Sequence[str]) -> Table:
        lined_up = Table(box=None, pad_edge=False)
        for column in columns:
            lined_up.add_column(column, no_wrap=True, justify="right" if column in _NUMBERS else "left")
        for row in rows:
            lined_up.add_row(*(Text(row[column]) for column in columns))
        return lined_up

    # Nothing is wrapped or truncated: a narrow terminal gets fewer columns, a script gets all.
    console, unbounded = Console(), Console(width=10_000)
    columns = list(_COLUMNS)
    while (
        console.is_terminal and len(columns) > 1 and unbounded.measure(table(columns)).maximum > console.width
    ):
        columns.pop()
    Console(width=unbounded.measure(table(columns)).maximum).print(table(columns))


def _row(model: Published, kept: Sequence[int]) -> dict[str, str]:
    return {
        "name": model.name,
        "version": str(model.version),
        "precision": model.precision,
        "target": model.target,
        "labels": str(len(model.labels)),
        "MB": f"{model.size / 1e6:.1f}",
        "kept": ",".join(map(str, kept)) or "-",
        "layout": model.layout,
        "weights": model.weights_sha256[:12],
        "tokenizer": model.tokenizer,
        "created": model.created_at,
    }
