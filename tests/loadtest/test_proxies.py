"""Proxies of the environment get nothing that bench and canary send to this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedded.canary import Canary
from embedded.repository import RepositoryModel
from loadtest.bench.grpc_client import GrpcTarget, over_grpc
from loadtest.bench.wrk import Wrk, find_wrk
from loadtest.closed_loop import Load, over_http
from tests.loadtest.test_load import TEXTS, _serving
from tests.support.fake_triton import FakeTriton
from tests.support.gateway_process import triton_in_a_thread

VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "grpc_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def _a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def triton() -> Iterator[FakeTriton]:
    with triton_in_a_thread(FakeTriton()) as fake:
        yield fake


def _loads() -> list[object]:
    wrk = find_wrk()
    missing = pytest.mark.skip(reason="wrk is not installed")
    return [
        pytest.param(over_http, id="own"),
        pytest.param(Wrk(wrk or "wrk"), id="wrk", marks=() if wrk else missing),
    ]


@pytest.mark.parametrize("load", _loads())
def test_the_bench_s_http(load: Load) -> None:
    with _serving() as server:
        assert load(server.target, TEXTS, 2, 0.1)["texts"] > 0


def test_the_bench_s_grpc(triton: FakeTriton) -> None:
    ensemble = triton.ensembles[0].name
    assert over_grpc(GrpcTarget(triton.url, ()), ensemble, TEXTS, 2, 1, 0.1)["texts"] > 0


def test_the_canary_of_the_embedded_triton(triton: FakeTriton) -> None:
    with Canary(triton.url, "key", "secret") as canary:
        assert canary.probe(RepositoryModel(triton.ensembles[0].name, "a model")).result(timeout=10).outputs
