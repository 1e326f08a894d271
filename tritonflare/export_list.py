"""``tritonflare export --list``: the published models as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tritonflare.tables import print_table

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
    from export.repository.inventory import read_inventory
    from export.repository.kept import other_versions

    rows = [_row(model, other_versions(repository, model)) for model in read_inventory(repository)]
    print_table({column: [row[column] for row in rows] for column in _COLUMNS}, numbers=_NUMBERS)


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
