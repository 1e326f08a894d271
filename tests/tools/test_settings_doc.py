from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from gateway.settings import Settings
from tools import settings_doc

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        (settings_doc.ENV_EXAMPLE, settings_doc.env_example()),
        (settings_doc.TABLE, settings_doc.markdown_table()),
    ],
)
def test_the_generated_files_in_git_are_current(file: Path, wanted: str) -> None:
    assert (ROOT / file).read_text(encoding="utf-8") == wanted, "run `make settings`"


def test_every_setting_is_named_in_both() -> None:
    for name in Settings.model_fields:
        variable = f"GATEWAY_{name.upper()}"
        assert f"#{variable}=" in settings_doc.env_example()
        assert f"`{variable}`" in settings_doc.markdown_table()


def shown_types() -> dict[str, str]:
    """The type column of the table, by the name of the field."""
    rows = re.findall(r"^\| `GATEWAY_(\w+)` \| ([^|]+) \|", settings_doc.markdown_table(), re.M)
    return {name.lower(): kind for name, kind in rows}


def annotation_of(name: str) -> Any:
    """What the code says a setting is, without ``None`` and without bounds."""
    hint = get_type_hints(Settings)[name]
    return next((arg for arg in get_args(hint) if type(None) in get_args(hint)), hint)


WORDS: dict[Any, set[str]] = {
    bool: {"`true` or `false`"},
    SecretStr: {"secret"},
    Path: {"path"},
    str: {"text", "URL"},
    int: {"integer", "bytes", "whole seconds"},
    float: {"number", "seconds", "share from 0 to 1"},
}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_type_of_every_setting_is_that_of_its_annotation(name: str) -> None:
    shown, annotation = shown_types()[name], annotation_of(name)
    if get_origin(annotation) is Literal:
        assert re.findall(r"`(\w+)`", shown) == list(get_args(annotation))
        return
    assert shown in WORDS[annotation]
    assert (shown in {"seconds", "whole seconds"}) == name.endswith(("_timeout_s", "_interval_s", *DURATIONS))
    assert (shown == "bytes") == name.endswith("_bytes")
    bounds = {key: value for item in Settings.model_fields[name].metadata for key, value in vars_of(item)}
    assert (shown == "share from 0 to 1") == (annotation is float and bounds == bounds | {"ge": 0, "le": 1})
    assert (shown == "URL") == ("https?" in str(bounds.get("pattern")))


DURATIONS = ("max_queue_s", "max_age_s", "delay_s", "keep_alive_s", "keep_s")
"""How the other settings that are times end; ``canaries_per_s`` is none of them."""


def vars_of(item: object) -> list[tuple[str, object]]:
    """What a bound holds; pydantic's and annotated_types' classes have slots or a dictionary."""
    return [(key, getattr(item, key)) for key in ("ge", "le", "pattern") if hasattr(item, key)]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("call_length_ratio", "number"),
        ("canaries_per_s", "number"),
        ("access_log_share", "share from 0 to 1"),
        ("otlp_endpoint", "URL"),
        ("drain_timeout_s", "whole seconds"),
        ("shutdown_delay_s", "seconds"),
        ("cache_bytes", "bytes"),
        ("log_format", "`text` or `json`"),
    ],
)
def test_a_unit_is_shown_only_where_the_setting_has_it(name: str, shown: str) -> None:
    assert shown_types()[name] == shown


def test_a_setting_of_a_type_without_a_name_is_refused() -> None:
    with pytest.raises(TypeError, match="GATEWAY_NAMES"):
        settings_doc.type_name("GATEWAY_NAMES", FieldInfo(annotation=list[str]))
