from __future__ import annotations

from pathlib import Path

import pytest

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
def test_the_files_in_git_say_what_the_code_says(file: Path, wanted: str) -> None:
    assert (ROOT / file).read_text(encoding="utf-8") == wanted, "run `make settings`"


def test_every_setting_is_named_in_both() -> None:
    for name in Settings.model_fields:
        variable = f"GATEWAY_{name.upper()}"
        assert f"#{variable}=" in settings_doc.env_example()
        assert f"`{variable}`" in settings_doc.markdown_table()
