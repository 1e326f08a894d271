"""One real tritonserver with the bundled model: INT8 in either layout, FP32; and a gateway before it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from embedded.server import RESTRICTED_KEY, TritonServer
from tests.support.bundled import bundled_repository, export_bundled
from tests.support.layouts import publish_joined
from tests.support.servers import ACCOUNT, TOKEN, Program, assert_nothing_left, running

INT8 = "@cf/huggingface/distilbert-sst-2-int8"
FP32 = "@test/fp32"
JOINED = "@test/joined"


@pytest.fixture(scope="session")
def int8_repository() -> Path:
    """The model in INT8 alone, which starts faster."""
    return bundled_repository()


@pytest.fixture(scope="session")
def repository(int8_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(int8_repository, folder / "models", symlinks=True)
    export_bundled(folder, "fp32", FP32)
    publish_joined(int8_repository, INT8, folder / "models", JOINED)
    return folder / "models"


@pytest.fixture(scope="session")
def triton(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository) as server:
        children = psutil.Process(server.pid).children(recursive=True)
        yield server
    assert_nothing_left(os.getpid(), children, "", tag=server.tag)


@pytest.fixture(scope="session")
def gateway(triton: TritonServer) -> Iterator[Program]:
    settings = {
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
        "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={triton.secret}",
        # Two encoder instances on two cores: 64 long texts at once take their time.
        "GATEWAY_REQUEST_TIMEOUT_S": "60",
    }
    with running("gateway", "--port", "0", "--triton-url", triton.address, **settings) as program:
        yield program


@pytest.fixture(scope="session")
def client(gateway: Program) -> Iterator[httpx.Client]:
    base = f"{gateway.url}/client/v4/accounts/{ACCOUNT}/ai/run/"
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
        yield client
