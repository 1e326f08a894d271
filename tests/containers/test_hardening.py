"""What of docs/docker.md's hardening the engine and the kernel enforce, and where secrets are found."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.containers import hardening
from tests.support.containers.deployment import IMAGE_PREFIX, Deployment
from tests.support.containers.hardening import HTTP2_SETTINGS, HTTP_OK

HUB_TOKEN = "hf_tokenfortheprivatehub"
LOAD_TOKEN = "tokenfortheloadtestalone"
TRITON_PORTS = (8000, 8001, 8002)
SERVICES = ("export", "plans", "triton", "gateway")


def address(deployment: Deployment, service: str, network: str) -> str:
    networks = deployment.inspect(deployment.containers(service)[0])["NetworkSettings"]["Networks"]
    return str(networks[f"{deployment.name}_{network}"]["IPAddress"])


def variables(deployment: Deployment) -> dict[str, str]:
    lines = (deployment.folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def reaches_triton(answers: dict[str, str]) -> list[str]:
    """The addresses at which Triton answered: by gRPC, or with its metrics."""
    return [name for name, start in answers.items() if start.startswith((HTTP_OK, HTTP2_SETTINGS))]


def triton_addresses(deployment: Deployment) -> list[str]:
    return [f"{address(deployment, 'triton', 'inference')}:{port}" for port in TRITON_PORTS]


def test_gateways_reach_grpc_and_metrics_of_triton_alone(deployment: Deployment) -> None:
    container = ["exec", deployment.containers("gateway")[0]]
    found = hardening.answers_in(deployment.engine, container, *triton_addresses(deployment))
    # Port 8000, HTTP, is for the health check in the container.
    assert reaches_triton(found) == triton_addresses(deployment)[1:]


def test_nothing_on_the_edge_network_reaches_triton(deployment: Deployment, base_image: str) -> None:
    names = [f"triton:{port}" for port in TRITON_PORTS]
    container = ["run", "--rm", "--network", f"{deployment.name}_edge", base_image]
    asked = ["gateway:8787", *names, *triton_addresses(deployment)]
    assert reaches_triton(hardening.answers_in(deployment.engine, container, *asked)) == ["gateway:8787"]


def test_triton_is_not_published_and_refuses_whoever_has_no_secret(deployment: Deployment) -> None:
    triton = deployment.inspect(deployment.containers("triton")[0])
    assert triton["NetworkSettings"]["Ports"] == {}
    # The host reaches every bridge.
    http, rpc, metrics = triton_addresses(deployment)
    assert reaches_triton(hardening.answers_here(http, rpc, metrics)) == [rpc, metrics]
    with grpc.insecure_channel(rpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for call, request in (
            (stub.ServerLive, service_pb2.ServerLiveRequest()),
            (stub.ModelInfer, service_pb2.ModelInferRequest(model_name="any")),
            (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest()),
        ):
            with pytest.raises(grpc.RpcError, match="restricted"):
                call(request, timeout=10)


def test_triton_reaches_nothing_outside(deployment: Deployment) -> None:
    triton = deployment.containers("triton")[0]
    # An address for documentation: its packets would leave the network of a container that has a way out.
    asked = ["127.0.0.1:8002", "198.51.100.1:443"]
    answers = hardening.answers_in(deployment.engine, ["exec", triton], *asked)
    assert [name for name, answer in answers.items() if answer] == ["127.0.0.1:8002"]


@pytest.mark.parametrize("service", ["triton", "gateway"])
def test_processes_have_no_rights(deployment: Deployment, service: str) -> None:
    container = deployment.containers(service)[0]
    status = hardening.process_status(deployment.engine, container)
    assert status["Uid"].split() == status["Gid"].split() == ["1000"] * 4
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert hardening.users(deployment.engine, container) == {"1000"}


def test_nothing_is_written_but_to_volumes_and_memory(deployment: Deployment) -> None:
    for service in SERVICES:
        container = deployment.containers(service)[0]
        assert hardening.written_files(deployment.engine, container) == [], service
        assert deployment.inspect(container)["HostConfig"]["ReadonlyRootfs"], service


def test_triton_cannot_write_the_models(deployment: Deployment) -> None:
    container = deployment.containers("triton")[0]
    refused = deployment.engine.run("exec", container, "touch", "/models/repository/new")
    assert "Read-only file system" in refused.stderr


def test_images_contain_no_secret(deployment: Deployment) -> None:
    images = [f"{IMAGE_PREFIX}tritonflare{name}:0.1.0" for name in ("", "-export", "-gateway")]
    # The last is in all images: what is there is found.
    texts = {deployment.token, variables(deployment)["TRITON_SECRET"], "PYTHONUNBUFFERED=1"}
    assert hardening.texts_in_images(deployment.engine, images, texts) == {"PYTHONUNBUFFERED=1"}


def test_builds_get_no_secret(deployment: Deployment) -> None:
    archive = hardening.build_context(deployment.engine, deployment.folder)
    with tarfile.open(fileobj=io.BytesIO(archive)) as context:
        names = context.getnames()
    assert "docker/env.sh" in names
    assert not [name for name in names if ".env" in name or ".git" in name.split("/")]
    for secret in (deployment.token, variables(deployment)["TRITON_SECRET"]):
        assert secret.encode() not in archive


@contextmanager
def with_all_secrets(deployment: Deployment) -> Iterator[None]:
    """A secret of each kind in .env."""
    env = deployment.folder / ".env"
    before = env.read_text()
    deployment.configure(HF_TOKEN=HUB_TOKEN, LOADTEST_TOKEN=LOAD_TOKEN)
    try:
        yield
    finally:
        env.write_text(before)


@pytest.mark.long
def test_each_container_gets_its_own_secrets_alone(deployment: Deployment) -> None:
    secrets = {
        "API token": deployment.token,
        "Triton": variables(deployment)["TRITON_SECRET"],
        "hub": HUB_TOKEN,
        "load test": LOAD_TOKEN,
    }
    project = ["compose", "--project-name", f"{deployment.name}-secrets", "--profile=*"]
    services = [*SERVICES, "loadtest", "loadtest-worker"]
    engine = deployment.engine
    found: dict[str, set[str]] = {}
    try:
        with with_all_secrets(deployment):
            engine.docker(*project, "create", *services, cwd=deployment.folder, timeout=600)
        for service in services:
            names = engine.docker(*project, "ps", "--all", "--quiet", service, cwd=deployment.folder)
            text = json.dumps([engine.inspect(name) for name in names.split()])
            found[service] = {owner for owner, secret in secrets.items() if secret in text}
    finally:
        engine.docker(*project, "down", "--volumes", cwd=deployment.folder)
    assert found == {
        "export": {"hub"},
        "plans": set(),
        "triton": {"Triton"},
        "gateway": {"API token", "Triton"},
        "loadtest": {"load test"},
        "loadtest-worker": {"load test"},
    }
