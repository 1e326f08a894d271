"""Marks every test with the name of its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent

# Shared machines stall for longer than Hypothesis allows a single example.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        item.add_marker(folder)
        if folder in ("clients", "triton"):
            # The first one pays for exports and the start of the server.
            item.add_marker(pytest.mark.timeout(400))
