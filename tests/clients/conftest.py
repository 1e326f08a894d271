"""The real tritonserver with the exported model, and two gateways before it.

One wants tokens always, one is open to bindings on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

from embedded.server import RESTRICTED_KEY, TritonServer
from tests.clients.node import require_node
from tests.triton.server import ACCOUNT, TOKEN, Program, assert_nothing_left, running
from tritonflare.paths import REPOSITORY


@pytest.fixture(scope="session", autouse=True)
def _node() -> None:
    require_node()


@pytest.fixture(scope="session")
def triton(_node: None) -> Iterator[TritonServer]:
    with TritonServer(REPOSITORY) as server:
        children = psutil.Process(server.pid).children(recursive=True)
        yield server
    assert_nothing_left(os.getpid(), children, "")


def _settings(triton: TritonServer) -> dict[str, str]:
    return {
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
        "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={triton.secret}",
    }


@pytest.fixture(scope="session")
def gateway(triton: TritonServer) -> Iterator[Program]:
    with running("gateway", "--port", "0", "--triton-url", triton.address, **_settings(triton)) as program:
        yield program


@pytest.fixture(scope="session")
def open_gateway(triton: TritonServer) -> Iterator[Program]:
    settings = _settings(triton) | {"GATEWAY_BINDING_WITHOUT_TOKEN": "true"}
    with running("gateway", "--port", "0", "--triton-url", triton.address, **settings) as program:
        yield program
