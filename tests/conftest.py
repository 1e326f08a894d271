"""Marks every test with its folder, shares the tests out to the workers of xdist, keeps one real Triton."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from embedded.server import TritonServer
from tests.support.bundled import bundled_repository
from tests.support.servers import assert_nothing_left

TESTS = Path(__file__).parent
ONE_AFTER_THE_OTHER = ("tests/embedded/", "tests/faults/", "tests/triton/")

# Shared machines stall for longer than Hypothesis allows a single example.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        item.add_marker(folder)
        if folder in ("clients", "deploy", "faults", "loadtest", "triton"):
            # The first one pays for exports and the start of the server.
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def real_triton() -> Iterator[TritonServer]:
    """The real tritonserver with the bundled model."""
    with TritonServer(bundled_repository()) as server:
        children = psutil.Process(server.pid).children(recursive=True)
        yield server
    assert_nothing_left(os.getpid(), children, "", tag=server.tag)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each worker whole files, whose fixtures are made once, in the order in which they were collected.

    Those that kill a Triton, or measure what a machine can do, are one unit: they would disturb each other.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "tritons" if file.startswith(ONE_AFTER_THE_OTHER) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # by the number of tests, which says nothing about their time
    return ByFile(config, log)
