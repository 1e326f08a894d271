"""Gateways before the real tritonserver with the exported model.

One wants tokens always, one is open to bindings on this machine, the others refuse for one reason each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from embedded.server import RESTRICTED_KEY, TritonServer
from tests.support.clients.checks import MODEL, TEXT
from tests.support.clients.node import require_node
from tests.support.clients.refusing_gateways import gateway_without_triton, occupied
from tests.support.servers import ACCOUNT, TOKEN, Program, running


@pytest.fixture(scope="module", autouse=True)
def _node(request: pytest.FixtureRequest) -> None:
    """Every client here is a program of node, but for modules that say otherwise."""
    if not getattr(request.module, "WITHOUT_NODE", False):
        require_node()


def _settings(real_triton: TritonServer) -> dict[str, str]:
    return {
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
        "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={real_triton.secret}",
    }


@pytest.fixture(scope="session")
def gateway(real_triton: TritonServer) -> Iterator[Program]:
    with running(
        "gateway", "--port", "0", "--triton-url", real_triton.address, **_settings(real_triton)
    ) as program:
        yield program


@pytest.fixture(scope="session")
def open_gateway(real_triton: TritonServer) -> Iterator[Program]:
    settings = _settings(real_triton) | {"GATEWAY_BINDING_WITHOUT_TOKEN": "true"}
    with running("gateway", "--port", "0", "--triton-url", real_triton.address, **settings) as program:
        yield program


@pytest.fixture(scope="session")
def hasty_gateway(real_triton: TritonServer) -> Iterator[Program]:
    """A gateway that gives a text less time than a long one takes."""
    settings = _settings(real_triton) | {
        "GATEWAY_REQUEST_TIMEOUT_S": "0.01",
        "GATEWAY_MAX_QUEUE_S": "0.005",
    }
    with running("gateway", "--port", "0", "--triton-url", real_triton.address, **settings) as program:
        yield program


@pytest.fixture(scope="session")
def small_gateway(real_triton: TritonServer) -> Iterator[Program]:
    """A gateway that works on one text at a time."""
    settings = _settings(real_triton) | {
        "GATEWAY_MAX_REQUESTS_IN_FLIGHT": "1",
        "GATEWAY_MAX_BATCH_TEXTS": "1",
        "GATEWAY_REQUEST_TIMEOUT_S": "60",
    }
    with running("gateway", "--port", "0", "--triton-url", real_triton.address, **settings) as program:
        yield program


@pytest.fixture
def busy_gateway(small_gateway: Program, real_triton: TritonServer) -> Iterator[Program]:
    """The same while it works on something."""
    with occupied(small_gateway, real_triton.pid):
        yield small_gateway


@pytest.fixture(scope="session")
def rated_gateway(real_triton: TritonServer) -> Iterator[Program]:
    """A gateway that takes one text a minute."""
    settings = _settings(real_triton) | {"GATEWAY_REQUESTS_PER_MINUTE": "1", "GATEWAY_MAX_BATCH_TEXTS": "1"}
    with running("gateway", "--port", "0", "--triton-url", real_triton.address, **settings) as program:
        yield program


@pytest.fixture
def spent_gateway(rated_gateway: Program) -> Program:
    """The same after that text."""
    # When the minute of the clock ends, a place becomes free: not between here and the test's request.
    left_s = 60 - time.time() % 60
    if left_s < 5:
        time.sleep(left_s + 0.1)
    url = f"{rated_gateway.url}/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    statuses = [httpx.post(url, json={"text": TEXT}, headers=headers).status_code for _ in range(2)]
    assert statuses[-1] == 429
    return rated_gateway


@pytest.fixture(scope="session")
def orphaned_gateway() -> Iterator[Program]:
    with gateway_without_triton() as program:
        yield program
