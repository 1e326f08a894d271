"""The tests and what people serve from the same checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_test_reads_the_repository_that_you_serve() -> None:
    """Tests that count its models, or serve them, fail once you have published a model of your own."""
    served = "paths import REPOSITORY", 'ROOT / "model_repository" /'
    readers = {
        file
        for file in (ROOT / "tests").rglob("*.py")
        if any(name in file.read_text(encoding="utf-8") for name in served)
    }
    assert readers == {Path(__file__)}
