"""Marks every test with its folder and with what it needs, and keeps one real Triton."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling

from embedded.server import TritonServer
from tests.support.bundled import bundled_repository
from tests.support.servers import assert_nothing_left

TESTS = Path(__file__).parent
# Nothing has imported ONNX Runtime yet, which would send events to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Shared machines stall for longer than Hypothesis allows a single example.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        item.add_marker(folder)
        if folder == "containers":
            # The first one builds the images.
            item.add_marker(pytest.mark.timeout(900))
        if folder in ("clients", "deploy", "faults", "loadtest", "triton"):
            # The first one pays for exports and the start of the server.
            item.add_marker(pytest.mark.timeout(400))
        if item.get_closest_marker("needs_triton") or item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.xdist_group("alone"))
        elif "real_triton" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.needs_triton)  # one that is shared, and that nobody kills


@pytest.fixture(scope="session")
def real_triton() -> Iterator[TritonServer]:
    """The real tritonserver with the bundled model."""
    with TritonServer(bundled_repository()) as server:
        children = psutil.Process(server.pid).children(recursive=True)
        yield server
    assert_nothing_left(os.getpid(), children, "", tag=server.tag)


class ByFile(LoadGroupScheduling):  # type: ignore[misc]
    """Gives a worker whole files, whose fixtures are made once; a group of tests is one file more."""

    def _split_scope(self, nodeid: str) -> str:
        return str(super()._split_scope(nodeid)).partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadGroupScheduling:
    return ByFile(config, log)
