"""The rendered manifests as pods of podman: what it can run runs, and an answer comes.

podman has no Services, autoscaling, NetworkPolicies or KServe; `kube_play.DROPPED` lists what is left out.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2

from tests.support.containers.deployment import ACCOUNT, IMAGE_PREFIX, PATH
from tests.support.containers.engine import Engine
from tests.support.containers.images import build_image
from tests.support.containers.kube_play import (
    CHANGES,
    DROPPED,
    create_secret,
    differences,
    playable,
)
from tests.support.containers.podman import Podman, private_podman
from tests.support.deploy.manifests import ROOT, VARIANTS, Manifest, named, of_kind, pod, pods, render
from tests.support.servers import wait_until

TOKEN = "a-token-from-the-secret"
KEY = "tritonflare=a-key-from-the-secret"
TAG = "0.1.0"
NAMES = ("triton", "gateway")
HEADLESS = "triton-headless"
VARIABLES = {"TRITON_KEY": KEY}
# The export and the stop take more than a minute.
pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Cluster:
    """The two pods on podman. Their addresses are kept, as podman gives none while a pod stops."""

    podman: Podman
    manifests: Sequence[Manifest]
    addresses: Mapping[str, str]

    def url(self) -> str:
        return f"http://{self.addresses['gateway']}:8787"

    def probe(self, name: str, kind: str) -> bool:
        """Ask as the kubelet does: HTTP and gRPC from the node, commands in the container."""
        probe = pod(self.manifests, name).main[kind]
        address = self.addresses[name]
        timeout = probe.get("timeoutSeconds", 1)
        if "exec" in probe:
            return self.podman.run("exec", container(name), *probe["exec"]["command"]).returncode == 0
        if "grpc" in probe:
            asked = probe["grpc"]
            return serving(f"{address}:{asked['port']}", asked.get("service", ""), timeout)
        port = pod(self.manifests, name).ports()[probe["httpGet"]["port"]]
        try:
            url = f"http://{address}:{port}{probe['httpGet']['path']}"
            return 200 <= httpx.get(url, timeout=timeout).status_code < 400
        except httpx.TransportError:
            return False


def container(name: str) -> str:
    return f"{name}-pod-0-{name}"


def serving(address: str, service: str, timeout: float) -> bool:
    with grpc.insecure_channel(address) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/grpc.health.v1.Health/Check"
        )
        try:
            request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
            return check(request, timeout=timeout) == b"\x08\x01"
        except grpc.RpcError:
            return False


@pytest.fixture(scope="module")
def podman(engine: Engine, base_image: str) -> Iterator[Podman]:
    with private_podman() as found:
        tags = [
            build_image(engine, ROOT / file, f"{IMAGE_PREFIX}{name}:{TAG}", base_image, **arguments)
            for name, file, arguments in (
                ("tritonflare", "docker/cpu/Dockerfile", {}),
                ("tritonflare-gateway", "docker/gateway/Dockerfile", {}),
                ("tritonflare-export", "docker/export/Dockerfile", {}),
                (
                    "tritonflare-checkpoint",
                    "deploy/kubernetes/checkpoint.Dockerfile",
                    {"EXPORT_IMAGE": f"{IMAGE_PREFIX}tritonflare-export:{TAG}"},
                ),
            )
        ]
        began = time.monotonic()
        found.copy_images(engine, [tag for tag in tags if "-export:" not in tag])
        print(f"copied images: {time.monotonic() - began:.0f} s")
        yield found


@pytest.fixture(scope="module")
def secret(podman: Podman) -> None:
    """The Secret that the documentation creates."""
    tokens = f"{ACCOUNT}:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n"
    create_secret(podman, "tritonflare", {"tokens": tokens, "triton-key": KEY})


@pytest.fixture(scope="module")
def cluster(podman: Podman, secret: None) -> Cluster:
    """Both pods, when all readiness probes pass."""
    # podman would put an emptyDir of memory on the disk; a volume that exists stays what it is.
    memory = ("--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=uid=1000,gid=1000")
    podman.podman("volume", "create", *memory, "triton-shm")
    manifests = render("cpu")
    began = time.monotonic()
    for name, alias in (("triton", HEADLESS), ("gateway", "tritonflare")):
        podman.play(playable(manifests, name, VARIABLES, IMAGE_PREFIX), alias=alias)
        print(f"{name} started: {time.monotonic() - began:.0f} s")
    cluster = Cluster(podman, manifests, {name: podman.address(f"{name}-pod-0") for name in NAMES})
    assert wait_until(lambda: all(cluster.probe(name, "readinessProbe") for name in NAMES), 90)
    print(f"ready: {time.monotonic() - began:.0f} s")
    return cluster


@pytest.mark.parametrize("name", NAMES)
def test_a_played_pod_differs_only_where_podman_needs_it(name: str) -> None:
    manifests = render("cpu")
    *maps, played = playable(manifests, name, VARIABLES, IMAGE_PREFIX)
    assert maps == of_kind(manifests, "ConfigMap")
    given = deepcopy(named(manifests, "Deployment", name))
    specs = [one["spec"]["template"].pop("spec") for one in (given, played)]
    assert given == played
    for path in differences(*specs):
        assert [pattern for pattern in CHANGES if re.fullmatch(pattern, path)], path


def test_every_change_is_needed_and_every_kind_is_played_or_named() -> None:
    manifests = render("cpu")
    paths: set[str] = set()
    for name in NAMES:
        specs = [
            one["spec"]["template"]["spec"]
            for one in (
                named(manifests, "Deployment", name),
                playable(manifests, name, VARIABLES, IMAGE_PREFIX)[-1],
            )
        ]
        paths.update(differences(*specs))
    for pattern in CHANGES:
        assert any(re.fullmatch(pattern, path) for path in paths), pattern
    kinds = {one["kind"] for variant in VARIANTS for one in render(variant)}
    assert kinds == {*DROPPED, "ConfigMap", "Deployment", "PersistentVolumeClaim"}


def test_the_init_container_exports_and_ends(cluster: Cluster) -> None:
    # podman removes an init container that has ended with 0, and starts nothing after another status.
    names = cluster.podman.podman("ps", "--all", "--format={{.Names}}").split()
    assert "triton-pod-0-export" not in names
    assert {container(name) for name in NAMES} <= set(names)
    found = cluster.podman.exec(container("triton"), "ls", "/models/repository").split()
    assert "cf-huggingface-distilbert-sst-2-int8" in found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_passes(cluster: Cluster, name: str, kind: str) -> None:
    assert cluster.probe(name, kind)


def test_podmans_own_healthcheck_passes(cluster: Cluster) -> None:
    assert cluster.podman.run("healthcheck", "run", container("triton")).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_container_is_as_restricted_inside_as_its_manifest_says(cluster: Cluster, name: str) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in cluster.podman.exec(container(name), "cat", "/proc/1/status").splitlines()
    )
    assert status["Uid"].split() == status["Gid"].split() == ["1000"] * 4
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "Read-only file system" in cluster.podman.run("exec", container(name), "touch", "/new").stderr
    for mount in pod(cluster.manifests, name).main["volumeMounts"]:
        done = cluster.podman.run("exec", container(name), "touch", f"{mount['mountPath']}/new")
        assert (done.returncode != 0) == mount.get("readOnly", False), mount


def test_shared_memory_is_memory(cluster: Cluster) -> None:
    mounts = cluster.podman.exec(container("triton"), "cat", "/proc/mounts").splitlines()
    assert [line.split()[2] for line in mounts if line.split()[1] == "/dev/shm"] == ["tmpfs"]


@pytest.mark.parametrize("name", NAMES)
def test_limits_arrive_in_the_cgroup(cluster: Cluster, name: str) -> None:
    limits = pod(cluster.manifests, name).main["resources"]["limits"]
    memory, cores = cgroup_limits(cluster.podman, container(name))
    assert (
        memory
        == int(limits["memory"].removesuffix("i")[:-1]) * {"M": 2**20, "G": 2**30}[limits["memory"][-2]]
    )
    assert math.isclose(cores, float(limits["cpu"]))


def cgroup_limits(podman: Podman, name: str) -> tuple[int, float]:
    """Bytes and cores, by either version of cgroups."""
    files = ["memory.max", "cpu.max"]
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        files = ["memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]
    files = [f"/sys/fs/cgroup/{file}" for file in files]
    memory, quota, period = map(int, podman.exec(name, "cat", *files).split())
    return memory, quota / period


def test_values_of_config_map_and_secret_arrive(cluster: Cluster) -> None:
    lines = cluster.podman.exec(container("gateway"), "env").splitlines()
    found = dict(line.split("=", 1) for line in lines)
    (source,) = pod(cluster.manifests, "gateway").main["envFrom"]
    data = named(cluster.manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    assert found.items() >= data.items()
    assert found["GATEWAY_TRITON_METADATA_KEY"] == KEY
    assert ACCOUNT in cluster.podman.exec(container("gateway"), "cat", data["GATEWAY_TOKENS_FILE"])


def classify(url: str, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(url + PATH, json={"text": "This pizza is great!"}, headers=headers, timeout=20)


def test_an_answer_comes_for_a_token_of_the_secret_alone(cluster: Cluster) -> None:
    answer = classify(cluster.url(), TOKEN)
    assert answer.status_code == 200, answer.text
    assert answer.json()["result"][1]["label"] == "POSITIVE"
    assert answer.json()["result"][1]["score"] > 0.9
    assert classify(cluster.url(), "another").status_code == 401


def test_triton_refuses_calls_without_the_key(cluster: Cluster) -> None:
    address = cluster.addresses["triton"]
    with grpc.insecure_channel(f"{address}:8001") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive"
        )
        assert call(b"", timeout=5) == b"\x08\x01"
        index: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/RepositoryIndex"
        )
        with pytest.raises(grpc.RpcError, match="restricted"):
            index(b"", timeout=5)
    metrics = httpx.get(f"http://{address}:8002/metrics", timeout=5).text
    assert "nv_inference_count" in metrics
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}:8000/v2/health/ready", timeout=5)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "cpu"])
def test_pods_of_other_variants_can_be_created(podman: Podman, secret: None, variant: str) -> None:
    manifests = render(variant)
    for deployment in of_kind(manifests, "Deployment"):
        name = deployment["metadata"]["name"]
        played = playable(manifests, name, VARIABLES, IMAGE_PREFIX)
        played[-1]["metadata"]["name"] = f"other-{name}"
        for each in only_containers(played[-1]):
            # NVIDIA's image is not here.
            each["image"] = f"localhost/{IMAGE_PREFIX}tritonflare:{TAG}"
        try:
            claims = of_kind(manifests, "PersistentVolumeClaim")
            podman.play([*claims, *played], alias="other", start=False)
            created = podman.podman("ps", "--all", "--format={{.Names}}").split()
        finally:
            podman.run("pod", "rm", "--force", f"other-{name}-pod-0")
            podman.run("volume", "rm", *(claim["metadata"]["name"] for claim in claims))
        assert {f"other-{name}-pod-0-{one['name']}" for one in only_containers(played[-1])} <= set(created)


def only_containers(deployment: Manifest) -> list[Any]:
    (one,) = pods([deployment])
    return one.containers


def test_a_gateway_that_stops_still_answers_until_it_has_left_the_endpoints(cluster: Cluster) -> None:
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop, cluster, "gateway")
        assert wait_until(lambda: not cluster.probe("gateway", "readinessProbe"), 5)
        assert classify(cluster.url(), TOKEN).status_code == 200
        stopping.result()


def test_triton_stops_in_its_grace_period(cluster: Cluster) -> None:
    stop(cluster, "triton")


def stop(cluster: Cluster, name: str) -> None:
    """As the kubelet does after preStop, which podman does not know; assert that it ends by itself."""
    grace_s = pod(cluster.manifests, name).spec["terminationGracePeriodSeconds"]
    began = time.monotonic()
    # Not the pod: podman would take the network away before the container has ended.
    cluster.podman.podman("stop", f"--time={grace_s}", container(name), timeout=grace_s + 30)
    took = time.monotonic() - began
    print(f"{name} stopped: {took:.1f} s")
    assert took < grace_s
    assert cluster.podman.inspect(container(name))["State"]["ExitCode"] == 0
