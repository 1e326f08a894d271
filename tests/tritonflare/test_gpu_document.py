"""docs/gpu.md quotes what the programs say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
SOURCES = [path for folder in ("embedded", "export", "tritonflare") for path in (ROOT / folder).rglob("*.py")]


def section(title: str) -> str:
    """What stands below a heading."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def quoted() -> list[str]:
    """The first cell of each row of the table of messages."""
    return re.findall(r"^\| `([^`]+)` \|", section("Messages"), re.MULTILINE)


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Every string of the sources; of an f-string each part, and strings side by side as one."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [node.value for node in nodes if isinstance(node.value, str)]


@pytest.mark.parametrize("sentence", quoted())
def test_a_message_of_the_page_is_one_of_the_programs(sentence: str, said: list[str]) -> None:
    # A colon joins what was checked to what was found, which are two strings.
    for part in re.split(r"…|: ", sentence):
        words = part.strip(" ,.():")
        assert any(words in text for text in said), words


def test_the_page_quotes_what_doctor_and_serve_may_find() -> None:
    assert len(quoted()) >= 12
