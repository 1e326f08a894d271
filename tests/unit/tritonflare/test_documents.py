from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "examples/*/*.md",
        "examples/*.md",
        "requirements/*.md",
        "checkpoints/*/*.md",
        "model_repository/*.md",
    )
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_placeholder_is_left_and_every_local_link_leads_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert not re.findall(r"@[A-Z0-9]+@", text)
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", text):
        assert not target or (document.parent / target).exists(), target


def test_the_snippets_about_workers_are_those_of_the_example() -> None:
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "examples/worker").rglob("*.*s")]
    shown = re.findall(
        r"```(?:js|ts)\n(.*?)```", (ROOT / "docs/workers.md").read_text(encoding="utf-8"), re.S
    )
    assert shown
    for snippet in shown:
        assert any(snippet in text for text in files), snippet
