"""One engine and one deployment for all tests of the containers: `make containers`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.containers.deployment import Deployment, new_deployment
from tests.support.containers.engine import Engine, available_engine
from tests.support.containers.images import python_image


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with available_engine() as found:
        yield found


@pytest.fixture(scope="session")
def base_image(engine: Engine) -> str:
    """The Python image that everything is built on."""
    return python_image(engine)


@pytest.fixture(scope="session")
def deployment(
    engine: Engine, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """The CPU files after the first `up`: one gateway and one Triton, until a test asks for more."""
    folder = tmp_path_factory.mktemp("deployment")
    found = new_deployment(engine, folder, f"tritonflare-test-{os.getpid()}", base_image)
    try:
        print(f"first up: {found.up():.0f} s")
        yield found
    finally:
        found.compose("--profile=*", "down", "--volumes", "--timeout=5")


@pytest.fixture
def fleet(deployment: Deployment) -> Deployment:
    """The same with two gateways and two Tritons, all healthy."""
    deployment.configure(REPLICAS_GATEWAY="2", REPLICAS_TRITON="2")
    # Without building again, which takes seconds even if nothing has changed.
    deployment.compose("up", "--detach", "--wait", "--no-build")
    return deployment
