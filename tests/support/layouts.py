"""The other layout of a published model, without another export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from export.repository.inventory import Published, read_config, read_inventory
from export.repository.publish import publish_model
from export.spec import JOINED, PREFIX, ServedModel


def publish_joined(repository: Path, name: str, into: Path, as_name: str | None = None) -> Published:
    """Publish a model of ``repository`` as its export would with ``--layout joined``."""
    return publish_layout(repository, name, into, JOINED, as_name)


def publish_layout(
    repository: Path, name: str, into: Path, layout: str, as_name: str | None = None
) -> Published:
    """Publish a model of ``repository`` as its export would with ``--layout``."""
    (published,) = (model for model in read_inventory(repository) if model.name == name)
    model = _served(repository, published, {"name": as_name or name, "layout": layout})
    publish_model(into, model, published.weights_file(repository), published.tokenizer_file(repository))
    (other,) = (other for other in read_inventory(into) if other.name == model.name)
    return other


def _served(repository: Path, published: Published, change: dict[str, str]) -> ServedModel:
    config = read_config(repository / published.ensemble)
    assert config is not None
    values: dict[str, Any] = {
        key.removeprefix(PREFIX): value.string_value for key, value in config.parameters.items()
    }
    numbers = ("max_tokens", "pad_id", "instances", "version", "group_texts", "group_tokens")
    for key in (*numbers, "special_tokens"):
        if key in values:
            values[key] = int(values[key])
    for key in ("labels", "aliases"):
        values[key] = tuple(json.loads(values.get(key, "[]")))
    values["token_types"] = values.get("token_types") == "true"
    return ServedModel(**values | change)
