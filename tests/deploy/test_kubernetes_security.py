"""What pods may do, which images they run, and who may talk to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import pytest
import yaml

from tests.support.deploy.manifests import (
    KUBERNETES,
    ROOT,
    VARIANTS,
    Manifest,
    Pod,
    matches,
    named,
    of_kind,
    pod,
    pods,
    render,
)

every_variant = pytest.mark.parametrize("variant", VARIANTS)


@every_variant
def test_no_pod_may_more_than_it_must(variant: str) -> None:
    for one in pods(render(variant)):
        assert one.spec["automountServiceAccountToken"] is False, one.name
        # Variables of a Service called gateway would be taken for settings.
        assert one.spec["enableServiceLinks"] is False, one.name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(one.spec)
        security = one.spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        sources = {source for volume in one.spec["volumes"] for source in volume if source != "name"}
        assert sources <= {"emptyDir", "secret", "persistentVolumeClaim"}, one.name
        for container in one.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, container["name"]


@every_variant
def test_the_namespace_refuses_pods_that_want_more(variant: str) -> None:
    (namespace,) = of_kind(render(variant), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@every_variant
def test_every_container_has_requests_and_limits(variant: str) -> None:
    for one in pods(render(variant)):
        for container in one.containers:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        for volume in one.spec["volumes"]:
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], volume["name"]


@every_variant
def test_every_image_is_of_this_version(variant: str) -> None:
    own = version("tritonflare")
    images = {container["image"] for one in pods(render(variant)) for container in one.containers}
    # NVIDIA's server is for GPUs; without one, that of the PyPI wheel does.
    triton = "tritonflare-triton" if "gpu" in variant else "tritonflare"
    assert images == {f"tritonflare-gateway:{own}", f"tritonflare-checkpoint:{own}", f"{triton}:{own}"}


@every_variant
def test_the_documented_command_puts_the_registry_before_every_image(variant: str) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    ((found, replacement),) = set(re.findall(r"\| sed 's\|([^|]+)\|([^|]+)\|'", page))
    text = yaml.safe_dump_all(render(variant))
    images = re.findall("image: (.*)", text.replace(found, replacement))
    assert images
    assert all(image.startswith("REGISTRY/tritonflare") for image in images)


def test_the_checkpoint_image_is_made_of_the_exporter() -> None:
    text = (KUBERNETES / "checkpoint.Dockerfile").read_text()
    assert re.findall("^FROM (.*)$", text, re.MULTILINE) == ["${EXPORT_IMAGE}"]
    default = f"tritonflare-export:{version('tritonflare')}"
    assert re.findall("^ARG EXPORT_IMAGE=(.*)$", text, re.MULTILINE) == [default]


@pytest.mark.parametrize("image", ["gateway", "export", "triton", "cpu"])
def test_images_are_called_as_their_dockerfiles_say(image: str) -> None:
    text = (ROOT / "docker" / image / "Dockerfile").read_text()
    name = {"cpu": "tritonflare"}.get(image, f"tritonflare-{image}")
    assert f"--tag {name}:{version('tritonflare')}" in text


@every_variant
def test_shared_memory_is_memory(variant: str) -> None:
    triton = pod(render(variant), "triton")
    (shm,) = [volume for volume in triton.spec["volumes"] if volume["name"] == "shm"]
    assert shm["emptyDir"]["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in triton.main["volumeMounts"]


@every_variant
def test_pods_reach_what_they_must_and_nothing_else(variant: str) -> None:
    manifests = render(variant)
    grpc = {"kserve": 9000}.get(variant, 8001)
    assert flows(manifests, "ingress") == {
        ("anyone", "gateway", "TCP", 8787),
        ("anyone", "gateway", "TCP", 8001),
        ("gateway", "triton", "TCP", grpc),
        ("monitoring/app.kubernetes.io/name=prometheus", "triton", "TCP", 8002),
    }
    assert flows(manifests, "egress") == {
        ("gateway", "triton", "TCP", grpc),
        ("gateway", "kube-system/k8s-app=kube-dns", "TCP", 53),
        ("gateway", "kube-system/k8s-app=kube-dns", "UDP", 53),
    }


@every_variant
def test_what_no_policy_allows_is_denied(variant: str) -> None:
    default = named(render(variant), "NetworkPolicy", "default-deny")["spec"]
    assert default == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@every_variant
def test_allowed_ports_are_those_that_pods_listen_on(variant: str) -> None:
    manifests = render(variant)
    for _, name, _, port in flows(manifests, "ingress"):
        one = pod(manifests, name)
        listening = {
            *one.ports().values(),
            *map(int, re.findall(r"-port=(\d+)", " ".join(one.main.get("args", ())))),
        }
        assert port in listening


def flows(manifests: Sequence[Manifest], direction: str) -> set[tuple[str, str, str, int]]:
    """(from, to, protocol, port) of all that the policies allow."""
    return {
        (peer, one.name, *port) if direction == "ingress" else (one.name, peer, *port)
        for policy in of_kind(manifests, "NetworkPolicy")
        for one in pods(manifests)
        if matches(policy["spec"]["podSelector"], one.labels)
        for rule in policy["spec"].get(direction, ())
        for peer in _peers(rule, "from" if direction == "ingress" else "to", pods(manifests))
        for port in _ports(rule)
    }


def _peers(rule: Mapping[str, Any], key: str, every: Sequence[Pod]) -> Iterator[str]:
    if key not in rule:
        yield "anyone"
    for peer in rule.get(key, ()):
        if "namespaceSelector" in peer:
            (namespace,) = peer["namespaceSelector"]["matchLabels"].values()
            ((label, value),) = peer["podSelector"]["matchLabels"].items()
            yield f"{namespace}/{label}={value}"
        else:
            yield from (one.name for one in every if matches(peer["podSelector"], one.labels))


def _ports(rule: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    # Without ports a rule allows all of them.
    assert rule["ports"]
    for port in rule["ports"]:
        yield port["protocol"], port["port"]
