"""Marks every test with the name of its folder; one real Triton for all folders that ask for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from embedded.server import TritonServer
from tests.triton.server import assert_nothing_left
from tritonflare.paths import REPOSITORY

TESTS = Path(__file__).parent

# Shared machines stall for longer than Hypothesis allows a single example.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        item.add_marker(folder)
        if folder in ("clients", "loadtest", "triton"):
            # The first one pays for exports and the start of the server.
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def real_triton() -> Iterator[TritonServer]:
    """The real tritonserver with the exported model."""
    with TritonServer(REPOSITORY) as server:
        children = psutil.Process(server.pid).children(recursive=True)
        yield server
    assert_nothing_left(os.getpid(), children, "")
