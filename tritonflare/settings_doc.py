"""Writes the pages that are made from the code: ``make settings``.

``.env.example`` and ``docs/settings.md`` from the settings, ``docs/compatibility.md`` from the exporter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from export.compatibility import as_markdown
from gateway.settings import Settings

ENV_EXAMPLE = Path(".env.example")
TABLE = Path("docs/settings.md")
COMPATIBILITY = Path("docs/compatibility.md")


def env_example() -> str:
    """Every setting, commented out, with its help and default."""
    blocks = ["# Settings of the gateway; made by `make settings`, do not edit. Environment variables win."]
    for name, field in _fields():
        blocks.append(f"# {field.description}\n#{name}={_default(field)}")
    return "\n\n".join(blocks) + "\n"


def markdown_table() -> str:
    """Every setting as a row: variable, type, default, help."""
    rows = [
        "# Settings\n",
        "Made from `gateway/settings.py` by `make settings`; do not edit.\n",
        "| variable | type | default | what it does |",
        "|---|---|---|---|",
    ]
    for name, field in _fields():
        default = f"`{_default(field)}`" if _default(field) else ""
        rows.append(f"| `{name}` | {_type(field)} | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def _fields() -> list[tuple[str, FieldInfo]]:
    prefix = Settings.model_config.get("env_prefix", "")
    return [(f"{prefix}{name}".upper(), field) for name, field in Settings.model_fields.items()]


def _default(field: FieldInfo) -> str:
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return "" if field.default is None else str(field.default)


def _type(field: FieldInfo) -> str:
    known: dict[Any, str] = {
        bool: "`true` or `false`",
        int: "integer",
        float: "seconds",
        str: "text",
        SecretStr | None: "secret",
    }
    values = getattr(field.annotation, "__args__", ())
    if values and all(isinstance(value, str) for value in values):
        return " or ".join(f"`{value}`" for value in values)
    return known.get(field.annotation, "path")


def main() -> None:
    """Write all three files."""
    TABLE.parent.mkdir(exist_ok=True)
    ENV_EXAMPLE.write_text(env_example(), encoding="utf-8")
    TABLE.write_text(markdown_table(), encoding="utf-8")
    COMPATIBILITY.write_text(as_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
