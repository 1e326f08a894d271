"""What spares the tests of exporting what they are not about."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports in this process draw none: that takes longer than the rest of a small model's export."""
    monkeypatch.setitem(sys.modules, "export.evaluation.plots", None)
