"""The load test is for classifiers, and says so of a reranker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_triton import RERANKER, reranker
from tests.support.gateway_process import gateway_before_fake
from tests.support.harness import ANY_TOKEN
from tests.support.locust_run import load, require_locust

_SERVING = re.compile(r"serving gRPC on (\S+)")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of a gateway that serves a classifier and a reranker: URL and gRPC."""
    require_locust()
    log = tmp_path_factory.mktemp("gateway") / "log"
    with gateway_before_fake(log, reranker(), GATEWAY_GRPC_PORT="0") as port:
        found = _SERVING.search(log.read_text())
        assert found is not None
        yield f"http://127.0.0.1:{port}", found[1]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_reranker_is_refused_with_a_way_out(
    gateway: tuple[str, str], tmp_path: Path, protocol: str
) -> None:
    url, grpc = gateway
    options = ("--protocol", protocol, "--grpc-host", grpc, "--model", RERANKER)
    run = load(url, tmp_path, *options, TOKEN=ANY_TOKEN)
    assert run.status == 1
    assert "No load: the model is a reranker, and the load test asks classifiers; set MODEL" in run.output
