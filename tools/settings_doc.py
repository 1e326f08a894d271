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


COMPOSE = {
    "COMPOSE_FILE": (
        "docker-compose.yml",
        "The files that describe the services; docker-compose.yml:docker-compose.cpu.yml without a GPU.",
    ),
    "TRITON_SECRET": ("", "What the gateway shows Triton with every call; any long random word. Required."),
    "PUBLISH": (
        "127.0.0.1:8787",
        "Address and port on this machine; with several gateways a range such as 127.0.0.1:8787-8788.",
    ),
    "REPLICAS_GATEWAY": ("1", "Gateways; each takes a port of PUBLISH."),
    "REPLICAS_TRITON": ("1", "Tritons; the gateways share their calls among them."),
    "TRITON_END_AFTER": (
        "4",
        "Health checks that fail in a row before they end Triton, so that it starts again; 0 never does.",
    ),
    "EXPORT_SOURCE": (
        "checkpoints/minilm-sst2",
        "What is served: a folder below `checkpoints/`, which is CHECKPOINTS, or a hub id such as org/name.",
    ),
    "EXPORT_NAME": (
        "",
        "Its public name, such as @cf/acme/mood; without one that of the checkpoint's tritonflare.json.",
    ),
    "EXPORT_TARGET": ("tensorrt", "tensorrt or onnxruntime; with docker-compose.cpu.yml always cpu."),
    "CHECKPOINTS": ("./checkpoints", "Folder of your own checkpoints."),
    "HF_TOKEN": ("", "Token for the hub, if EXPORT_SOURCE is one of its ids and not public."),
    "HF_ENDPOINT": ("", "Address of another hub."),
    "LOADTEST_HOST": ("http://gateway:8787", "What the profile loadtest asks (docs/loadtest.md)."),
    "LOADTEST_TOKEN": ("", "The token that it shows."),
    "LOADTEST_WORKERS": ("2", "Processes that send."),
    "LOADTEST_LOAD": ("0.7", "Load as a share of what the server can do."),
    "LOADTEST_DURATION": ("60s", "How long it sends."),
}
"""Variables of the compose files that are no settings of the gateway: default and help."""


def env_example() -> str:
    """Every variable of the compose files and every setting, commented out, with its help and default."""
    blocks = [
        "# Made by `make settings`, do not edit. docker compose reads a copy called .env (docs/docker.md)."
    ]
    for name, (default, text) in COMPOSE.items():
        blocks.append(f"# {text}\n#{name}={default}")
    blocks.append("# Settings of the gateway. Environment variables win.")
    for name, field in _fields():
        blocks.append(f"# {field.description}\n#{name}={_default(field)}")
    return "\n\n".join(blocks) + "\n"


def markdown_table() -> str:
    """Every setting as a row: variable, type, default, help."""
    rows = [
        "# Settings\n",
        "Made from `gateway/settings.py` by `make settings`; do not edit. In a clone, `tritonflare` is "
        "`.venv/bin/tritonflare`.\n",
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
