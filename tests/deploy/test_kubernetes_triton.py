"""The real tritonserver with the command line of the Deployment, and a gateway with its key.

It is the server of the overlay `cpu`. That of the GPU overlays is two years younger: for those, what is
shown here are the options and the wiring.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from embedded.server import RESTRICTED_KEY, TritonServer
from tests.deploy.test_kubernetes_metrics import TRITON, exported_names
from tests.support.bundled import bundled_repository
from tests.support.deploy.manifests import ROOT, pod, render
from tests.support.servers import ACCOUNT, TOKEN, Program, assert_nothing_left, running

MODEL = "@cf/huggingface/distilbert-sst-2-int8"
pytestmark = pytest.mark.timeout(400)


class DeployedTriton(TritonServer):
    """Started with the arguments of the pod; paths, addresses and ports are those of this machine."""

    http_port = metrics_port = 0

    def command(self, scratch: Path) -> list[str]:
        program, *own = super().command(scratch)
        self.http_port, self.metrics_port = free_port(), free_port()
        here = {
            "--model-repository": str(scratch / "models"),
            "--grpc-port": str(self.port),
            "--http-port": str(self.http_port),
            "--metrics-address": "127.0.0.1",
            "--metrics-port": str(self.metrics_port),
        }
        arguments = []
        for argument in pod(render("cpu"), "triton").main["args"]:
            name, equals, value = argument.partition("=")
            value = here.get(name, value).replace("$(TRITON_KEY)", f"{RESTRICTED_KEY}={self.secret}")
            arguments.append(name + equals + value)
        # Where the wheel's backend lies, and loopback.
        local = [one for one in own if one.startswith(("--backend-", "--grpc-address"))]
        return [program, *arguments, *local]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def triton() -> Iterator[DeployedTriton]:
    server = DeployedTriton(bundled_repository())
    with server:
        children = psutil.Process(server.pid).children(recursive=True)
        yield server
    assert_nothing_left(os.getpid(), children, "", tag=server.tag)


@pytest.fixture(scope="module")
def gateway(triton: DeployedTriton) -> Iterator[Program]:
    settings = {
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
        "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={triton.secret}",
    }
    with running(
        "gateway", "--port", "0", "--triton-url", f"dns:///localhost:{triton.port}", **settings
    ) as program:
        yield program


def test_the_probe_needs_no_key_and_everything_else_does(triton: DeployedTriton) -> None:
    with grpc.insecure_channel(triton.address) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/grpc.health.v1.Health/Check"
        )
        # HealthCheckResponse with status 1, SERVING: what the kubelet wants to see.
        assert check(b"", timeout=5) == b"\x08\x01"
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for call, request in (
            (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest()),
            (stub.ModelInfer, service_pb2.ModelInferRequest(model_name="any")),
            (stub.SystemSharedMemoryRegister, service_pb2.SystemSharedMemoryRegisterRequest()),
        ):
            with pytest.raises(grpc.RpcError, match="restricted"):
                call(request, timeout=5)


def test_the_canary_of_the_image_gets_its_answer(triton: DeployedTriton, tmp_path: Path) -> None:
    _, script, *arguments = pod(render("cpu"), "triton").main["livenessProbe"]["exec"]["command"]
    file = ROOT / "docker" / "triton" / script.rpartition("/")[2]
    arguments[arguments.index("--url") + 1] = f"http://127.0.0.1:{triton.http_port}"
    arguments[arguments.index("--state") + 1] = str(tmp_path / "state")
    done = subprocess.run(
        [sys.executable, str(file), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_triton_exports_what_the_autoscaler_asks_for(triton: DeployedTriton, gateway: Program) -> None:
    assert classify(gateway) == 200
    exported = httpx.get(f"http://127.0.0.1:{triton.metrics_port}/metrics", timeout=10).text
    assert exported_names(exported) >= TRITON
    for name in TRITON:
        # The models that the adapter's expression means.
        assert len(re.findall(rf'^{name}{{model="[^"]+_encoder_[^"]+"', exported, re.MULTILINE)) == 1


def classify(gateway: Program) -> int:
    url = f"{gateway.url}/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.post(url, json={"text": "A fine film."}, headers=headers, timeout=20).status_code
