"""Programs that some tests need and that a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def required(program: str, reason: str) -> str:
    """Return where ``program`` is; skip with ``reason`` where it is not, and fail where CI runs."""
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found
