"""Gateways before the real tritonserver with the exported model.

One wants tokens always, one is open to bindings on this machine, the others refuse for one reason each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from embedded.server import RESTRICTED_KEY, TritonServer
from tests.support.clients.checks import MODEL, TEXT
from tests.support.clients.inference_clients import (
    Target,
    grpc_address,
    require_clients,
    scores_of_the_http_api,
)
from tests.support.clients.node import require_node
from tests.support.clients.refusing_gateways import gateway_without_triton, occupied
from tests.support.harness import pause_before_a_rate_s
from tests.support.servers import ACCOUNT, TOKEN, Program, running

TEXTS = (
    TEXT,
    "The waiter was rude, and “awful” 🍕.",
    "a",
    "Neither here nor there. " * 10,
    "So good. " * 400,  # more tokens than the model takes
)


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
def queueing_gateway(
    real_triton: TritonServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """A gateway that queues batches, and is open to bindings on this machine."""
    settings = _settings(real_triton) | {
        "GATEWAY_BINDING_WITHOUT_TOKEN": "true",
        "GATEWAY_BATCH_FOLDER": str(tmp_path_factory.mktemp("batches")),
    }
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
    time.sleep(pause_before_a_rate_s())
    url = f"{rated_gateway.url}/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    statuses = [httpx.post(url, json={"text": TEXT}, headers=headers).status_code for _ in range(2)]
    assert statuses[-1] == 429
    return rated_gateway


@pytest.fixture(scope="session")
def orphaned_gateway() -> Iterator[Program]:
    with gateway_without_triton() as program:
        yield program


@pytest.fixture(scope="session")
def inference_gateway(real_triton: TritonServer) -> Iterator[Program]:
    """A gateway that speaks gRPC too, and refuses none of several clients that send many texts at once."""
    require_clients()
    settings = _settings(real_triton) | {
        "GATEWAY_GRPC_PORT": "0",
        "GATEWAY_MAX_REQUESTS_IN_FLIGHT": "2000",
        "GATEWAY_MAX_QUEUE_S": "30",
        "GATEWAY_REQUEST_TIMEOUT_S": "60",
    }
    with running("gateway", "--port", "0", "--triton-url", real_triton.address, **settings) as program:
        yield program


@pytest.fixture(scope="session")
def inference_target(inference_gateway: Program) -> Target:
    return Target(grpc_address(inference_gateway), inference_gateway.url.removeprefix("http://"), TEXTS)


@pytest.fixture(scope="session")
def http_scores(inference_gateway: Program) -> list[list[float]]:
    """What the Workers AI API answers for TEXTS, one at a time and alone, in FP32."""
    return scores_of_the_http_api(inference_gateway.url, TEXTS)


@pytest.fixture(scope="session")
def secure_target(real_triton: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A gateway that speaks TLS on both ports."""
    require_clients()
    folder = tmp_path_factory.mktemp("certificates")
    settings = _settings(real_triton) | {"GATEWAY_GRPC_PORT": "0"} | _certificate(folder)
    with running("gateway", "--port", "0", "--triton-url", real_triton.address, **settings) as program:
        authority = str(folder / "authority.pem")
        grpc = grpc_address(program).replace("127.0.0.1", "localhost")
        yield Target(grpc, program.url.removeprefix("https://"), TEXTS, authority=authority)


def _certificate(folder: Path) -> dict[str, str]:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(folder / "chain.pem", append=True)
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return {
        "GATEWAY_TLS_CERTIFICATE": str(folder / "chain.pem"),
        "GATEWAY_TLS_KEY": str(folder / "key.pem"),
    }
