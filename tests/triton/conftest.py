"""One real tritonserver with the bundled model in INT8 and FP32, and a gateway before it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from embedded.server import RESTRICTED_KEY, TritonServer
from export.plan import ExportPlan
from export.run import run_export
from tests.texts import CHECKPOINT, few_examples
from tests.triton.server import ACCOUNT, TOKEN, Program, assert_nothing_left, running

INT8 = "@cf/huggingface/distilbert-sst-2-int8"
FP32 = "@test/fp32"


def _export(folder: Path, precision: str, name: str | None) -> None:
    """Publish the bundled model in ``folder/models``; the gate, tested elsewhere, asks about few texts."""
    plan = ExportPlan(
        CHECKPOINT,
        folder / "models",
        folder / precision,
        examples=few_examples(folder),
        all_precisions=False,
        precision=precision,
        name=name,
        timing=None,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.run.ENOUGH_TEXTS", 0)
        run_export(plan)


@pytest.fixture(scope="session")
def int8_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in INT8 alone, which starts faster."""
    folder = tmp_path_factory.mktemp("int8")
    _export(folder, "int8", None)
    return folder / "models"


@pytest.fixture(scope="session")
def repository(int8_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(int8_repository, folder / "models", symlinks=True)
    _export(folder, "fp32", FP32)
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
