"""Writes the pages that are made from the code: ``make settings``.

``.env.example`` and ``docs/settings.md`` from the settings, ``docs/compatibility.md`` from the exporter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

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
        "The files that describe the services; docker-compose.yml:docker-compose.cpu.yml without a GPU; "
        "docker-compose.grpc.yml behind either publishes the gRPC port (docs/clients.md).",
    ),
    "TRITON_SECRET": (
        "",
        "Secret that the gateway sends to Triton with every call; any long random word. Required.",
    ),
    "PUBLISH": (
        "127.0.0.1:8787",
        "Published address and port; with several gateways a range such as 127.0.0.1:8787-8788.",
    ),
    "PUBLISH_GRPC": (
        "127.0.0.1:8001",
        "With docker-compose.grpc.yml: published address and port for gRPC; with several gateways a range.",
    ),
    "REPLICAS_GATEWAY": ("1", "Number of gateways; each uses one port of PUBLISH and of PUBLISH_GRPC."),
    "REPLICAS_TRITON": ("1", "Number of Tritons; the gateways spread their calls over them."),
    "TRITON_END_AFTER": (
        "4",
        "Health checks that fail in a row before they end Triton, so that it starts again; 0 never does.",
    ),
    "EXPORT_SOURCE": (
        "checkpoints/minilm-sst2",
        "Model to serve: a folder below `checkpoints/` (see CHECKPOINTS), or a hub id such as org/name.",
    ),
    "EXPORT_NAME": (
        "",
        "Public name, such as @cf/acme/mood; the default is the name in the checkpoint's tritonflare.json.",
    ),
    "EXPORT_REVISION": (
        "",
        "Branch, tag or commit of a hub id; with a full commit, an unchanged model starts without the hub.",
    ),
    "EXPORT_TARGET": ("tensorrt", "tensorrt or onnxruntime; with docker-compose.cpu.yml always cpu."),
    "EXPORT_OPTIONS": (
        "",
        "More options of `tritonflare export`, quoted as in a shell, such as --allow-poor --keep 5.",
    ),
    "CHECKPOINTS": ("./checkpoints", "Folder with your checkpoints."),
    "IMAGE_PREFIX": ("", "Put before the names of our images, such as registry.example/team/."),
    "PYTHON_IMAGE": (
        "python:3.12.13-slim-bookworm",
        "Base of our images, such as your mirror of it; with a GPU the same Python as in TRITON_IMAGE.",
    ),
    "TRITON_IMAGE": (
        "nvcr.io/nvidia/tritonserver:26.09-py3",
        "NVIDIA's serving image, or your mirror of it; not used with docker-compose.cpu.yml.",
    ),
    "HF_TOKEN": ("", "Token for the hub, if EXPORT_SOURCE is a private hub id."),
    "HF_ENDPOINT": ("", "Address of another hub."),
    "LOADTEST_HOST": ("http://gateway:8787", "Server that the profile loadtest tests (docs/loadtest.md)."),
    "LOADTEST_TOKEN": ("", "Token for the load test."),
    "LOADTEST_WORKERS": ("2", "Processes that send requests."),
    "LOADTEST_LOAD": ("0.7", "Load as a share of the server's capacity."),
    "LOADTEST_DURATION": ("60s", "Duration of the load."),
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
        "Every setting is an environment variable. Made from `gateway/settings.py` by `make settings`; do "
        "not edit. In a clone, `tritonflare` is `.venv/bin/tritonflare`.\n",
        "| variable | type | default | what it does |",
        "|---|---|---|---|",
    ]
    for name, field in _fields():
        default = f"`{_default(field)}`" if _default(field) else ""
        rows.append(f"| `{name}` | {type_name(name, field)} | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def _fields() -> list[tuple[str, FieldInfo]]:
    prefix = Settings.model_config.get("env_prefix", "")
    return [(f"{prefix}{name}".upper(), field) for name, field in Settings.model_fields.items()]


def _default(field: FieldInfo) -> str:
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return "" if field.default is None else str(field.default)


def type_name(name: str, field: FieldInfo) -> str:
    """Name the type and unit of a setting, as the column ``type`` shows it.

    Raises:
        TypeError: the annotation has no name here.
    """
    arguments = get_args(field.annotation)
    if get_origin(field.annotation) is Literal:
        *first, last = (f"`{value}`" for value in arguments)
        return f"{', '.join(first)} or {last}"
    kind = field.annotation if type(None) not in arguments else arguments[0]
    if kind in (int, float):
        return _number(name, kind is int, field)
    if kind is str:
        return "URL" if any(getattr(item, "pattern", None) for item in field.metadata) else "text"
    known: dict[Any, str] = {bool: "`true` or `false`", SecretStr: "secret", Path: "path"}
    if kind not in known:
        raise TypeError(f"{name}: no name for the type {field.annotation}")
    return known[kind]


def _number(name: str, whole: bool, field: FieldInfo) -> str:
    if name.endswith("_S") and not name.endswith("_PER_S"):
        return "whole seconds" if whole else "seconds"
    if name.endswith("_BYTES"):
        return "bytes"
    if any(getattr(item, "le", None) == 1 for item in field.metadata):
        return "share from 0 to 1"
    return "integer" if whole else "number"


def main() -> None:
    """Write all three files."""
    TABLE.parent.mkdir(exist_ok=True)
    ENV_EXAMPLE.write_text(env_example(), encoding="utf-8")
    TABLE.write_text(markdown_table(), encoding="utf-8")
    COMPATIBILITY.write_text(as_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
